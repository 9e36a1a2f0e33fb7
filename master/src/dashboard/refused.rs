//! The page instead of a page: why there is none, and where to go. Pure.

use maud::{Markup, html};
use millstream_common::control::ControlError;

use super::frame::{Frame, LIVE_MS, Place};

/// What a person is told whose page cannot be made. `active`: where the dashboard of the active master is.
pub(super) fn page(error: &ControlError, active: Option<&str>, now_us: i64) -> Markup {
    let title = match error {
        ControlError::NotFound { .. } => "Not found",
        ControlError::Unavailable {
            active: Some(_), ..
        } => "This master stands by",
        ControlError::Unavailable { .. } => "The master cannot answer now",
        _ => "This cannot be shown",
    };
    let frame = Frame {
        title,
        place: Place::Elsewhere,
        refresh_ms: LIVE_MS,
        now_us,
    };
    frame.around(html! {
        h1 { (title) }
        div.answer.warn {
            p.headline { (error) }
            @if let Some(active) = active {
                // Whatever this page came by, TLS or not, the other one comes by.
                p { "Its dashboard is at " a href=(format!("//{active}/")) { (active) } "." }
            }
            @if let ControlError::NotFound { nearest: Some(nearest), .. } = error {
                p { a href=(format!("/jobs/{}", super::query::path_segment(nearest))) { (nearest) } }
            }
            p { a href="/" { "All jobs" } }
        }
    })
}
