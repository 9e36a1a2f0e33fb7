//! Previews to and from generated messages: the first message has the header, all others have rows.

use millstream_proto::v1;

use crate::control::{PreviewColumn, PreviewHeader, PreviewPart, PreviewRows};
use crate::ids::{Generation, WorkerId};

impl From<PreviewPart> for v1::PreviewRelationResponse {
    fn from(part: PreviewPart) -> Self {
        match part {
            PreviewPart::Header(header) => Self {
                header: Some(header.into()),
                ..Self::default()
            },
            PreviewPart::Rows(rows) => Self {
                header: None,
                worker: rows.worker.0,
                arrow_stream: rows.arrow_stream,
                skipped_rows: rows.skipped_rows,
            },
        }
    }
}

impl From<v1::PreviewRelationResponse> for PreviewPart {
    fn from(response: v1::PreviewRelationResponse) -> Self {
        match response.header {
            Some(header) => Self::Header(header.into()),
            None => Self::Rows(PreviewRows {
                worker: WorkerId(response.worker),
                arrow_stream: response.arrow_stream,
                skipped_rows: response.skipped_rows,
            }),
        }
    }
}

impl From<PreviewHeader> for v1::PreviewHeader {
    fn from(header: PreviewHeader) -> Self {
        let column = |column: PreviewColumn| v1::PreviewColumn {
            name: column.name,
            sql_type: column.sql_type,
        };
        Self {
            relation: header.relation,
            generation: header.generation.0,
            is_changelog: header.is_changelog,
            columns: header.columns.into_iter().map(column).collect(),
            left_out: header.left_out,
            workers: header.workers.into_iter().map(|worker| worker.0).collect(),
        }
    }
}

impl From<v1::PreviewHeader> for PreviewHeader {
    fn from(header: v1::PreviewHeader) -> Self {
        let column = |column: v1::PreviewColumn| PreviewColumn {
            name: column.name,
            sql_type: column.sql_type,
        };
        Self {
            relation: header.relation,
            generation: Generation(header.generation),
            is_changelog: header.is_changelog,
            columns: header.columns.into_iter().map(column).collect(),
            left_out: header.left_out,
            workers: header.workers.into_iter().map(WorkerId).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_preview_survive_the_wire() {
        let header = PreviewPart::Header(PreviewHeader {
            relation: "views".to_owned(),
            generation: Generation(3),
            is_changelog: true,
            columns: vec![PreviewColumn {
                name: "url".to_owned(),
                sql_type: "TEXT".to_owned(),
            }],
            left_out: vec!["agent".to_owned()],
            workers: vec!["w1".into()],
        });
        let rows = PreviewPart::Rows(PreviewRows {
            worker: "w1".into(),
            arrow_stream: vec![1, 2, 3],
            skipped_rows: 7,
        });
        for part in [header, rows] {
            let wire = v1::PreviewRelationResponse::from(part.clone());
            assert_eq!(PreviewPart::from(wire), part);
        }
    }
}
