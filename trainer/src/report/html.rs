//! A report as one HTML page: no script, nothing from elsewhere, charts as inline SVG.

use std::fmt::Write as _;

use waf_model::model::baseline::MOVED;

use super::{Report, map::Map};
use crate::{calibrate::RouteRate, evaluate::Evaluation};

/// Colors of clusters, told apart by most eyes on light and dark ground.
const COLORS: [&str; 8] =
    ["#3b6fd4", "#d9822b", "#2f9e77", "#b4489b", "#8a6d3b", "#5aa7c9", "#c2473d", "#7a7f87"];

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1d2430;--soft:#667084;--line:#d8dde6;--ground:#fbfcfe;--card:#fff;--accent:#3b6fd4}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#323a48;--ground:#12161d;--card:#1a202a;--accent:#7aa5ff}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px 64px}h1{font-size:26px;margin:0 0 4px}h2{font-size:17px;margin:0 0 12px}
p{margin:6px 0;color:var(--soft)}section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin:16px 0;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500}th:first-child,td:first-child{text-align:left}tr:last-child td{border-bottom:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:18px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}.tile b{display:block;font-size:22px}.tile span{color:var(--soft)}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:16px}.two section{margin:0}
.ok{color:#2f9e77}.bad{color:#c2473d}svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:11px system-ui,sans-serif}
.axis{stroke:var(--line)}.curve{fill:none;stroke:var(--accent);stroke-width:2}.bar{fill:var(--accent)}ul{padding-left:18px}
";

/// The page of a training run.
pub fn training(report: &Report, refusals: &[String]) -> String {
    let mut body = String::new();
    let verdict = if refusals.is_empty() {
        "<b class=ok>passed every gate</b>".to_owned()
    } else {
        "<b class=bad>refused: the model in force stays</b>".to_owned()
    };
    let _ = write!(body, "<h1>Model {}</h1><p>{verdict}</p>", report.seq);
    if !refusals.is_empty() {
        let items: String = refusals.iter().map(|reason| format!("<li>{}</li>", escape(reason))).collect();
        let _ = write!(body, "<section><h2>Why it is refused</h2><ul>{items}</ul></section>");
    }
    let tiles = [
        (thousands(report.rows), "requests learned from"),
        (thousands(report.clients), "clients"),
        (thousands(report.endpoints as u64), "endpoints known"),
        (thousands(report.clusters as u64), "clusters of requests"),
        (
            format!("{} of {}", thousands(report.holdout.1), thousands(report.holdout.0)),
            "held-out requests rejected",
        ),
    ];
    let tiles: String = tiles
        .iter()
        .map(|(value, label)| format!("<div class=tile><b>{value}</b><span>{label}</span></div>"))
        .collect();
    let _ = write!(body, "<div class=tiles>{tiles}</div>");
    let _ = write!(
        body,
        "<div class=two>{}{}</div>",
        section("Clusters", &map(&report.map)),
        section("What they are", &clusters(&report.map))
    );
    body += &section("Promises", &promises(report));
    body += &section("Calibration", &calibration(report));
    if report.routes.iter().any(|route| !route.route.is_empty()) {
        body += &section("By route", &routes(report));
    }
    body += &section("What was removed", &removed(report));
    body += &section("Profile coverage", &coverage(report));
    if let Some(drift) = &report.drift {
        let (middle, largest) = drift.movement();
        let bars: Vec<(String, f64)> =
            drift.psi.iter().take(12).map(|(name, psi)| (name.replace('_', " "), f64::from(*psi))).collect();
        let text = format!(
            "<p>Population stability index of the features since the model in force: {:.0}% are over {MOVED}. \
             Centers of matched clusters moved by {middle:.2} usual deviations in the middle, {largest:.2} at most.</p>{}",
            100.0 * drift.moved_features(),
            chart_bars(&bars)
        );
        body += &section("Drift", &text);
    }
    page(&format!("Model {}", report.seq), &body)
}

/// The page of an evaluation on labelled requests.
pub fn evaluation(found: &Evaluation, model: u64) -> String {
    let mut body = format!(
        "<h1>Model {model} on labelled requests</h1><p>{} harmless requests, {} attacks, all distinct; the model \
         alone, without rules.</p>",
        thousands(found.benign as u64),
        thousands(found.attacks as u64)
    );
    let mut tiles = format!("<div class=tile><b>{:.4}</b><span>ROC-AUC</span></div>", found.roc_auc);
    for rate in found.rates.iter().filter(|rate| rate.supported) {
        let _ = write!(
            tiles,
            "<div class=tile><b>{:.2}%</b><span>detected at {} false positives</span></div>",
            100.0 * rate.tpr,
            percent(rate.fpr)
        );
    }
    let _ = write!(body, "<div class=tiles>{tiles}</div>");
    let _ = write!(
        body,
        "<div class=two>{}{}</div>",
        section("ROC", &chart_curve(&found.curve, false)),
        section("Detection by rate of false positives", &chart_curve(&found.curve, true))
    );
    let mut rows = String::new();
    for class in &found.classes {
        let rates: String = class.tpr.iter().map(|tpr| format!("<td>{:.1}%</td>", 100.0 * tpr)).collect();
        let name = if class.class.is_empty() { "(no class)" } else { &class.class };
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{:.4}</td>{rates}</tr>",
            escape(name),
            thousands(class.attacks as u64),
            class.roc_auc
        );
    }
    let head: String = found.rates.iter().map(|rate| format!("<th>at {}</th>", percent(rate.fpr))).collect();
    let table = format!("<table><tr><th>class</th><th>attacks</th><th>ROC-AUC</th>{head}</tr>{rows}</table>");
    body += &section("By class of attack", &table);
    let _ = write!(
        body,
        "<p>At the model's own threshold {:.2}: {:.2}% of the attacks, {} of the harmless requests.</p>",
        found.own.threshold,
        100.0 * found.own.tpr,
        percent(found.own.fpr)
    );
    page(&format!("Model {model}: evaluation"), &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style><main>{body}</main></html>\n",
        escape(title)
    )
}

fn section(title: &str, content: &str) -> String {
    format!("<section><h2>{title}</h2>{content}</section>")
}

fn promises(report: &Report) -> String {
    let row = |name: &str, c: &waf_model::model::calibration::Certificate| {
        format!(
            "<tr><td>{name}</td><td>{}</td><td>{:.0}%</td><td>{}</td><td>{:.2}</td><td>{:?}</td></tr>",
            percent(c.budget),
            100.0 * c.confidence,
            thousands(c.n),
            c.threshold,
            c.standing
        )
    };
    let others = report
        .groups
        .others
        .as_ref()
        .map(|certificate| row("those of routes without their own", certificate));
    let others = others.unwrap_or_default();
    format!(
        "<table><tr><th></th><th>false positives at most</th><th>confidence</th><th>from so many</th><th>threshold</th>\
         <th>standing</th></tr>{}{}{}</table>",
        row("requests rejected, all routes", &report.request),
        others,
        row("client-days blocked", &report.client)
    )
}

fn calibration(report: &Report) -> String {
    let rows: String = report
        .calibration
        .iter()
        .map(|(share, distance)| format!("<tr><td>{}</td><td>{distance:.2}</td></tr>", percent(*share)))
        .collect();
    format!(
        "<table><tr><th>share of clean, later requests</th><th>at least this far from normal</th></tr>{rows}</table>"
    )
}

fn routes(report: &Report) -> String {
    let rows: String = report
        .routes
        .iter()
        .map(|route| {
            format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td><td>{}</td></tr>",
                escape(&route.route),
                thousands(route.n),
                thousands(route.flagged),
                percent(route.certified),
                route.threshold,
                promise(route)
            )
        })
        .collect();
    format!(
        "<table><tr><th>route</th><th>clean, later requests</th><th>of them rejected</th><th>rate at most</th>\
         <th>threshold</th><th>promise</th></tr>{rows}</table>"
    )
}

/// Whose promise counts on a route.
fn promise(route: &RouteRate) -> String {
    let whose = if route.own { "its own" } else { "shared" };
    format!("{whose}, {:?}", route.standing).to_lowercase()
}

fn removed(report: &Report) -> String {
    let all = report.extent.removed.iter().chain(&report.extent.left_out);
    let mut bars: Vec<(String, f64)> =
        all.map(|(reason, count)| (reason.replace('_', " "), *count as f64)).collect();
    bars.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let read = thousands(report.extent.read);
    if bars.is_empty() {
        return format!("<p>Nothing: all {read} requests are clean.</p>");
    }
    format!(
        "<p>Of {read} requests, {} may be learned from.</p>{}",
        thousands(report.extent.rows),
        chart_bars(&bars)
    )
}

fn coverage(report: &Report) -> String {
    let mature = report.coverage.iter().filter(|(_, weight, _)| *weight >= 30.0).count();
    let total: f32 = report.coverage.iter().map(|(_, weight, _)| weight).sum();
    let known: f32 =
        report.coverage.iter().map(|(_, weight, _)| weight).filter(|weight| **weight >= 30.0).sum();
    let rows: String = report
        .coverage
        .iter()
        .take(15)
        .map(|(endpoint, weight, params)| {
            format!(
                "<tr><td>{}</td><td>{}</td><td>{params}</td></tr>",
                escape(endpoint),
                thousands(*weight as u64)
            )
        })
        .collect();
    format!(
        "<p>{mature} of {} endpoints are known from 30 changes of client or more; they carry {:.1}% of the traffic.</p>\
         <table><tr><th>endpoint</th><th>client changes</th><th>parameters</th></tr>{rows}</table>",
        report.coverage.len(),
        100.0 * known / total.max(1.0)
    )
}

fn color(cluster: usize) -> &'static str {
    COLORS.get(cluster % COLORS.len()).copied().unwrap_or("gray")
}

fn clusters(map: &Map) -> String {
    let rows: String = map
        .clusters
        .iter()
        .take(10)
        .enumerate()
        .map(|(index, spot)| {
            format!(
                "<tr><td><span style=\"color:{}\">&#9679;</span> {}</td><td>{:.1}%</td></tr>",
                color(index),
                escape(&spot.name),
                100.0 * spot.mass
            )
        })
        .collect();
    format!("<table><tr><th>cluster</th><th>share</th></tr>{rows}</table>")
}

fn map(map: &Map) -> String {
    let all = || map.points.iter().map(|(x, y, _)| (*x, *y)).chain(map.clusters.iter().map(|spot| spot.at));
    let range = |values: Vec<f32>| {
        let mut values = values;
        values.sort_by(f32::total_cmp);
        // The few farthest would squeeze the rest together.
        let at = |share: f32| values.get((values.len() as f32 * share) as usize).copied().unwrap_or(0.0);
        let (low, high) = (at(0.01), at(0.99));
        (low - 0.5, (high - low + 1.0).max(0.1))
    };
    let (x0, width) = range(all().map(|(x, _)| x).collect());
    let (y0, height) = range(all().map(|(_, y)| y).collect());
    let place = |x: f32, y: f32| {
        let (x, y) = ((x - x0) / width, (y - y0) / height);
        (10.0 + 440.0 * x.clamp(0.0, 1.0), 310.0 - 300.0 * y.clamp(0.0, 1.0))
    };
    let mut svg = String::from("<svg viewBox=\"0 0 460 320\" role=img aria-label=\"map of the clusters\">");
    for (x, y, cluster) in &map.points {
        let (x, y) = place(*x, *y);
        let _ = write!(svg, "<circle cx={x:.1} cy={y:.1} r=1.8 fill=\"{}\" opacity=.45 />", color(*cluster));
    }
    for (index, spot) in map.clusters.iter().enumerate() {
        let (x, y) = place(spot.at.0, spot.at.1);
        let radius = 4.0 + 14.0 * spot.mass.sqrt();
        let _ = write!(
            svg,
            "<circle cx={x:.1} cy={y:.1} r={radius:.1} fill=none stroke=\"{}\" stroke-width=2 />",
            color(index)
        );
    }
    svg + "</svg>"
}

fn chart_bars(bars: &[(String, f64)]) -> String {
    let most = bars.iter().map(|(_, value)| *value).fold(1e-9, f64::max);
    let mut svg = format!("<svg viewBox=\"0 0 900 {}\" role=img>", 22 * bars.len());
    for (index, (name, value)) in bars.iter().enumerate() {
        let y = 22 * index;
        let shown = if *value >= 10.0 { thousands(*value as u64) } else { format!("{value:.3}") };
        let length = 620.0 * value / most;
        let _ = write!(
            svg,
            "<text x=190 y={} text-anchor=end>{}</text><rect class=bar x=200 y={} width={length:.1} height=14 rx=3 />\
             <text x={:.1} y={}>{shown}</text>",
            y + 15,
            escape(name),
            y + 4,
            208.0 + length,
            y + 15
        );
    }
    svg + "</svg>"
}

/// Detection over the rate of false positives; logarithmic from 1e-5 to 1 if `log`.
fn chart_curve(curve: &[(f64, f64)], log: bool) -> String {
    let across = |fpr: f64| if log { (fpr.max(1e-5).log10() + 5.0) / 5.0 } else { fpr };
    let place = |fpr: f64, tpr: f64| (44.0 + 400.0 * across(fpr), 280.0 - 260.0 * tpr);
    let mut svg = String::from("<svg viewBox=\"0 0 460 316\" role=img aria-label=\"detection curve\">");
    for tenth in 0..=5 {
        let share = f64::from(tenth) / 5.0;
        let (_, y) = place(1.0, share);
        let x = 44.0 + 400.0 * share;
        let label = if log { format!("1e-{}", 5 - tenth) } else { format!("{share:.1}") };
        let _ = write!(
            svg,
            "<line class=axis x1=44 x2=444 y1={y:.1} y2={y:.1} /><text x=38 y={:.1} text-anchor=end>{:.0}%</text>\
             <line class=axis x1={x:.1} x2={x:.1} y1=20 y2=280 /><text x={x:.1} y=296 text-anchor=middle>{label}</text>",
            y + 4.0,
            100.0 * share
        );
    }
    let points: Vec<String> =
        curve.iter().map(|(fpr, tpr)| place(*fpr, *tpr)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(svg, "<polyline class=curve points=\"{}\" />", points.join(" "));
    svg + "<text x=244 y=312 text-anchor=middle>share of harmless requests flagged</text></svg>"
}

fn percent(share: f64) -> String {
    match share {
        x if x >= 0.0995 => format!("{:.0}%", 100.0 * x),
        x if x >= 0.000_95 => format!("{:.1}%", 100.0 * x),
        x if x <= 0.0 => "0%".to_owned(),
        x => format!("{:.1e}", x),
    }
}

fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well_and_text_stays_text() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(12), "12");
        assert_eq!(
            (percent(0.5).as_str(), percent(0.002).as_str(), percent(1e-4).as_str()),
            ("50%", "0.2%", "1.0e-4")
        );
        assert_eq!(escape("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
