//! A plot of ratios: a bar for each, from nothing to its median, with its least and greatest as a line across the end.
//!
//! Called by the parts that measure several things beside one. Pure: returns the text of an SVG, which follows the reader's light or dark
//! scheme and is readable as text.

use crate::report::Spread;

/// A bar.
pub(crate) struct Bar {
    pub(crate) name: String,
    /// As ratios to what 1 stands for.
    pub(crate) ratio: Spread,
}

const WIDTH: f64 = 760.0;
const NAMES_WIDTH: f64 = 330.0;
const VALUES_WIDTH: f64 = 60.0;
const TITLE_HEIGHT: f64 = 44.0;
const ROW_HEIGHT: f64 = 30.0;
const BAR_HEIGHT: f64 = 16.0;
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1b1f24}.title{font-weight:600;font-size:14px}\
    .bar{fill:#2f6f9f}.spread,.one{stroke:#1b1f24}.spread{stroke-width:1.5}.one{stroke-dasharray:3 3;stroke-opacity:.5}\
    @media(prefers-color-scheme:dark){text{fill:#e6e8eb}.bar{fill:#6db3e0}.spread,.one{stroke:#e6e8eb}}";

/// The bars below each other under a title.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let greatest = bars
        .iter()
        .map(|bar| bar.ratio.greatest)
        .fold(1.0, f64::max);
    let scale = (WIDTH - NAMES_WIDTH - VALUES_WIDTH) / greatest;
    let at = |ratio: f64| NAMES_WIDTH + ratio.max(0.0) * scale;
    let height = TITLE_HEIGHT + ROW_HEIGHT * bars.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <style>{STYLE}</style>\n<title>{0}</title>\n\
         <text class=\"title\" x=\"8\" y=\"24\">{0}</text>\n",
        escaped(title)
    );
    for (index, bar) in bars.iter().enumerate() {
        let middle = TITLE_HEIGHT + ROW_HEIGHT * (index as f64 + 0.5);
        svg += &row(bar, middle, at);
    }
    svg + &format!(
        "<line class=\"one\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TITLE_HEIGHT}\" y2=\"{height}\"/>\n</svg>\n",
        at(1.0)
    )
}

fn row(bar: &Bar, middle: f64, at: impl Fn(f64) -> f64) -> String {
    let (least, median, greatest) = (bar.ratio.least, bar.ratio.median, bar.ratio.greatest);
    let (left, right, top) = (NAMES_WIDTH, at(median), middle - BAR_HEIGHT / 2.0);
    let baseline = middle + 4.5;
    format!(
        "<text x=\"8\" y=\"{baseline:.1}\">{}</text>\n\
         <rect class=\"bar\" x=\"{left}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>\n\
         <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\n\
         <text x=\"{:.1}\" y=\"{baseline:.1}\">{median:.2}</text>\n",
        escaped(&bar.name),
        right - left,
        at(least),
        at(greatest),
        at(greatest) + 8.0,
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_ends_at_its_median_and_one_has_a_line_of_its_own() {
        let half = Bar {
            name: "a < b".to_owned(),
            ratio: Spread::of(vec![0.5]),
        };
        let whole = WIDTH - NAMES_WIDTH - VALUES_WIDTH;
        let svg = bars("ratios", &[half]);
        assert!(
            svg.contains(&format!("width=\"{:.1}\"", whole / 2.0)),
            "{svg}"
        );
        assert!(
            svg.contains(&format!("x1=\"{:.1}\"", NAMES_WIDTH + whole)),
            "{svg}"
        );
        assert!(svg.contains("a &lt; b") && svg.contains(">0.50<"), "{svg}");
    }
}
