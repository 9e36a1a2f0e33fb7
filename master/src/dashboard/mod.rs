//! The dashboard: what the control API tells, as pages of the master's HTTP server.
//!
//! Merged into the routes of `common::http` by the master, behind whatever protects those. Asks only the [`ControlBackend`], so it
//! shows what every other client is told, and changes nothing. Pages are pure functions from views to HTML; this file asks, hands the
//! answers to them and sets the headers. Everything is in the binary and a page needs nothing else: the policy in its headers allows
//! neither inline scripts nor other hosts. Each page reads as it is; `live.js` fetches it again and again where scripts run.
//! Failure: what the master refuses is a page that says so, with the status that fits; one that stands by leads to the active one.

mod answer;
mod epochs;
mod frame;
mod graph;
mod job;
mod jobs;
mod letters;
mod query;
mod refused;
mod sinks;
mod source_text;
mod splits;
mod stages;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use maud::Markup;
use millstream_common::control::{ControlError, LetterFilter, LetterQuery};
use millstream_common::ids::JobName;
use millstream_common::time::ClockRef;

use self::job::JobPage;
use self::query::Query;
use crate::service::{ControlBackend, job_name};

/// Only what this server serves, and nothing that stands in a page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Longer than any answer of a master that can act; who waits for a page is told after it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Epochs of a job's page.
const EPOCHS_SHOWN: usize = 40;

/// What the pages are made from.
#[derive(Clone)]
struct Dashboard {
    backend: Arc<dyn ControlBackend>,
    clock: ClockRef,
}

/// The routes of the pages and of what they load.
pub(crate) fn router(backend: Arc<dyn ControlBackend>, clock: ClockRef) -> Router {
    Router::new()
        .route("/", get(jobs_page))
        .route("/jobs/{name}", get(job_page))
        .route("/jobs/{name}/dead-letters", get(letters_page))
        .route("/workers", get(workers_page))
        .route(frame::STYLE, get(style))
        .route(frame::SCRIPT, get(script))
        .route(frame::ICON, get(icon))
        .with_state(Dashboard { backend, clock })
}

async fn jobs_page(State(dashboard): State<Dashboard>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref());
    let page = async {
        let jobs = dashboard.backend.list().await?;
        let workers = dashboard.backend.workers().await?;
        let now_us = dashboard.clock.unix_micros();
        Ok(jobs::page(&jobs, workers.len(), &query, now_us))
    };
    dashboard.answer(page).await
}

async fn job_page(
    State(dashboard): State<Dashboard>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = Query::parse(query.as_deref());
    let page = async {
        let name = job_name(name)?;
        let backend = &dashboard.backend;
        let page = JobPage {
            job: backend.get(&name).await?,
            plan: backend.plan(&name).await?,
            watermarks: backend.watermarks(&name).await?,
            epochs: backend.checkpoints(&name, EPOCHS_SHOWN).await?,
            workers: backend.workers().await?,
            now_us: dashboard.clock.unix_micros(),
        };
        Ok(job::page(&page, &query))
    };
    dashboard.answer(page).await
}

async fn letters_page(
    State(dashboard): State<Dashboard>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = Query::parse(query.as_deref());
    let page = async {
        let name = job_name(name)?;
        let job = dashboard.backend.get(&name).await?;
        let plan = dashboard.backend.plan(&name).await?;
        let letters = dashboard.letters(&name, &query).await?;
        let now_us = dashboard.clock.unix_micros();
        Ok(letters::page(&job, &plan, &letters, &query, now_us))
    };
    dashboard.answer(page).await
}

async fn workers_page(State(dashboard): State<Dashboard>) -> Response {
    let page = async {
        let workers = dashboard.backend.workers().await?;
        Ok(workers::page(&workers, dashboard.clock.unix_micros()))
    };
    dashboard.answer(page).await
}

impl Dashboard {
    /// The page, or why there is none.
    async fn answer(&self, page: impl Future<Output = Result<Markup, ControlError>>) -> Response {
        let made = tokio::time::timeout(PATIENCE, page).await;
        let made = made.unwrap_or_else(|_| {
            Err(ControlError::Unavailable {
                cause: format!("it did not answer within {} s", PATIENCE.as_secs()),
                active: None,
            })
        });
        match made {
            Ok(page) => html(StatusCode::OK, page),
            Err(error) => {
                let active = self.backend.dashboard_of_active();
                let now_us = self.clock.unix_micros();
                let page = refused::page(&error, active.as_deref(), now_us);
                html(status(&error), page)
            }
        }
    }

    /// The dead letters up to the end of the page that is asked for, and one more if there are more.
    async fn letters(
        &self,
        name: &JobName,
        query: &Query,
    ) -> Result<Vec<millstream_common::control::DeadLetterView>, ControlError> {
        let page = letters::page_number(query) as u64;
        let wanted = LetterQuery {
            filter: LetterFilter {
                owner: query.get("owner").map(str::to_owned),
                code: query.get("code").map(str::to_owned),
                ..LetterFilter::default()
            },
            limit: page * letters::PAGE as u64 + 1,
        };
        let mut parts = self.backend.dead_letters(name, wanted).await?;
        let mut letters = Vec::new();
        while let Some(part) = parts.next().await {
            letters.extend(part?.letters);
        }
        Ok(letters)
    }
}

fn status(error: &ControlError) -> StatusCode {
    match error {
        ControlError::NotFound { .. } => StatusCode::NOT_FOUND,
        ControlError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        ControlError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        ControlError::Problems(_)
        | ControlError::Invalid(_)
        | ControlError::AlreadyRunning { .. }
        | ControlError::PlanChanged { .. }
        | ControlError::NotRunning { .. } => StatusCode::BAD_REQUEST,
    }
}

/// A page is of this moment, and for nobody but who asked.
fn html(status: StatusCode, page: Markup) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, page.into_string()).into_response()
}

async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("assets/style.css"))
}

async fn script() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("assets/live.js"),
    )
}

async fn icon() -> Response {
    asset("image/svg+xml", include_str!("assets/icon.svg"))
}

/// A part of the binary: asked for again by each page, so that it is never of another version than the page.
fn asset(kind: &'static str, content: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    (headers, content).into_response()
}
