//! Counts, their intervals, and the table.

use std::{collections::BTreeMap, fmt::Write as _};

use datasets::labelled::Label;

use crate::sets::Set;

/// Half-width of a 95 % interval in standard deviations.
const Z: f64 = 1.96;

/// How many requests there were, and how many of them each set blocked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    requests: u64,
    blocked: Vec<u64>,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    file: String,
    label: Label,
    class: Option<String>,
    tally: Tally,
}

impl Tally {
    /// One request, with the verdict of each set.
    pub(crate) fn of(blocked: Vec<bool>) -> Self {
        Self { requests: 1, blocked: blocked.into_iter().map(u64::from).collect() }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.blocked.resize(self.blocked.len().max(other.blocked.len()), 0);
        for (sum, more) in self.blocked.iter_mut().zip(&other.blocked) {
            *sum += more;
        }
    }
}

/// Sums up the requests of one file: a row for each label, then one for each class if asked.
pub(crate) fn rows(
    file: &str,
    tallies: impl Iterator<Item = (Label, String, Tally)>,
    classes: bool,
) -> Vec<Row> {
    let mut sums: BTreeMap<(Label, Option<String>), Tally> = BTreeMap::new();
    for (label, class, tally) in tallies {
        sums.entry((label, None)).or_default().add(&tally);
        if classes {
            sums.entry((label, Some(class))).or_default().add(&tally);
        }
    }
    let row = |((label, class), tally)| Row { file: file.to_owned(), label, class, tally };
    sums.into_iter().map(row).collect()
}

/// The table, and below it the mean true positive rate over the attack files.
pub(crate) fn render(rows: &[Row], sets: &[Set]) -> String {
    let mut out = format!("{:<34} {:<6} {:>8}", "file", "label", "requests");
    for set in sets {
        let _ = write!(out, "  {:<30}", set.name);
    }
    out.push('\n');
    for label in [Label::Benign, Label::Attack] {
        for row in rows.iter().filter(|row| row.label == label) {
            let (name, kind) = match (&row.class, label) {
                (Some(class), _) => (format!("  {class}"), ""),
                (None, Label::Benign) => (row.file.clone(), "benign"),
                (None, Label::Attack) => (row.file.clone(), "attack"),
            };
            let _ = write!(out, "{name:<34} {kind:<6} {:>8}", row.tally.requests);
            for blocked in &row.tally.blocked {
                let _ = write!(out, "  {:<30}", cell(*blocked, row.tally.requests));
            }
            out.push('\n');
        }
    }
    for (label, text) in
        [(Label::Benign, "mean over the benign files"), (Label::Attack, "mean over the attack files")]
    {
        let files: Vec<&Row> = rows.iter().filter(|row| row.label == label && row.class.is_none()).collect();
        if files.len() < 2 {
            continue;
        }
        let _ = write!(out, "{text:<50}");
        for column in 0..sets.len() {
            let rate =
                |row: &&Row| share(row.tally.blocked.get(column).copied().unwrap_or(0), row.tally.requests);
            let mean = files.iter().map(rate).sum::<f64>() / files.len() as f64;
            let _ = write!(out, "  {:<30}", format!("{:.3} %", 100.0 * mean));
        }
        out.push('\n');
    }
    out
}

fn cell(count: u64, of: u64) -> String {
    let (low, high) = interval(count, of);
    format!("{count:>6} {:>7.3} % [{:.3}, {:.3}]", 100.0 * share(count, of), 100.0 * low, 100.0 * high)
}

fn share(count: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { count as f64 / of as f64 }
}

/// The 95 % interval of a share by Wilson's score (1927), which holds for small counts too.
fn interval(count: u64, of: u64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (of as f64, share(count, of));
    let scale = 1.0 + Z * Z / n;
    let middle = (p + Z * Z / (2.0 * n)) / scale;
    let width = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - width).max(0.0), (middle + width).min(1.0))
}
