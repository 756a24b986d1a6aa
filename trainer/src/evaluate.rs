//! What a model is worth on labelled requests: detection at fixed rates of false positives.

use std::{collections::BTreeMap, fmt};

use anyhow::{Result, bail};
use datasets::labelled::Label;
use serde::Serialize;
use waf_model::{client::ClientVector, model::Model};

use crate::dataset::{
    Slice,
    from_files::{FileDataset, observe},
};

/// Rates of false positives at which detection is stated.
const RATES: [f64; 3] = [1e-2, 1e-3, 1e-4];

/// Which harmless requests are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Every distinct one: for files that the model was not trained on.
    All,
    /// The last ones of each file, which `train` keeps aside: for files that the model was trained on.
    Holdout,
}

/// How a model does on labelled requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Distinct harmless requests judged.
    pub benign: usize,
    /// Distinct attacks judged.
    pub attacks: usize,
    /// Area under the ROC curve: how often an attack is farther from normal than a harmless request.
    pub roc_auc: f64,
    /// Detection at fixed rates of false positives.
    pub rates: Vec<AtRate>,
    /// At the threshold that the model carries for all routes.
    pub own: AtThreshold,
    /// By class of attack.
    pub classes: Vec<Class>,
    /// Rates of false positives and the detection at each, ascending: the ROC curve, closer together at its start.
    pub curve: Vec<(f64, f64)>,
}

/// Detection at one rate of false positives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AtRate {
    /// False-positive rate that is not exceeded.
    pub fpr: f64,
    /// Share of the attacks beyond the threshold.
    pub tpr: f64,
    /// Distance that must be exceeded.
    pub threshold: f32,
    /// Whether there are enough harmless requests to speak of this rate at all.
    pub supported: bool,
}

/// What the model's own threshold does; the one over all routes, since labelled requests have none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AtThreshold {
    /// The threshold.
    pub threshold: f32,
    /// Share of harmless requests flagged.
    pub fpr: f64,
    /// Share of attacks flagged.
    pub tpr: f64,
}

/// One class of attack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// Its name in the files.
    pub class: String,
    /// Distinct attacks.
    pub attacks: usize,
    /// Area under the ROC curve against all harmless requests.
    pub roc_auc: f64,
    /// Detection at the same thresholds.
    pub tpr: Vec<f64>,
}

/// Judges `model` on the labelled requests of `files`, without rules and without client history.
///
/// # Errors
/// A file cannot be read, or has no harmless requests or no attacks.
pub fn evaluate(model: &Model, files: &FileDataset, part: Part) -> Result<Evaluation> {
    let mut benign = Vec::new();
    let mut attacks: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    files.scan_labelled(|row| {
        let wanted =
            part == Part::All || row.slice != Some(Slice::Train) && row.slice != Some(Slice::Calibrate);
        if wanted {
            let observation = observe(&row.request, model.value_key());
            let distance = model.score(&observation, &ClientVector::UNKNOWN).request_distance;
            match row.request.label {
                Label::Benign => benign.push(distance),
                Label::Attack => attacks.entry(row.request.class).or_default().push(distance),
            }
        }
        Ok(())
    })?;
    measure(benign, attacks, model.request_certificate().threshold)
}

fn measure(mut benign: Vec<f32>, attacks: BTreeMap<String, Vec<f32>>, own: f32) -> Result<Evaluation> {
    let all: Vec<f32> = attacks.values().flatten().copied().collect();
    if benign.is_empty() || all.is_empty() {
        bail!(
            "{} harmless requests and {} attacks: evaluating needs some of both; add a file with the other label",
            benign.len(),
            all.len()
        );
    }
    benign.sort_by(f32::total_cmp);
    let beyond = |scores: &[f32], threshold: f32| {
        scores.iter().filter(|score| **score > threshold).count() as f64 / scores.len() as f64
    };
    let rates: Vec<AtRate> = RATES
        .iter()
        .map(|&fpr| {
            let allowed = (fpr * benign.len() as f64).floor() as usize;
            let threshold = benign.iter().rev().nth(allowed).copied().unwrap_or(f32::INFINITY);
            AtRate { fpr, tpr: beyond(&all, threshold), threshold, supported: allowed > 0 }
        })
        .collect();
    let own = AtThreshold {
        threshold: own,
        fpr: beyond(&benign, own.next_down()),
        tpr: beyond(&all, own.next_down()),
    };
    let classes = attacks
        .into_iter()
        .map(|(class, scores)| Class {
            class,
            attacks: scores.len(),
            roc_auc: roc_auc(&benign, &scores),
            tpr: rates.iter().map(|rate| beyond(&scores, rate.threshold)).collect(),
        })
        .collect();
    let beyond_all = |threshold: f32| beyond(&all, threshold);
    Ok(Evaluation {
        benign: benign.len(),
        attacks: all.len(),
        roc_auc: roc_auc(&benign, &all),
        rates,
        own,
        classes,
        curve: curve(&benign, &beyond_all),
    })
}

/// Points of the ROC curve, each a tenth farther than the one before; `benign` is sorted.
fn curve(benign: &[f32], detection: &dyn Fn(f32) -> f64) -> Vec<(f64, f64)> {
    let mut curve = Vec::new();
    let mut allowed = 0;
    while let Some(threshold) = benign.iter().rev().nth(allowed) {
        curve.push((allowed as f64 / benign.len() as f64, detection(*threshold)));
        allowed = (allowed + 1).max(allowed * 11 / 10);
    }
    curve.push((1.0, 1.0));
    curve
}

/// Probability that an attack scores higher than a harmless request, ties counting half; `benign` is sorted.
fn roc_auc(benign: &[f32], attacks: &[f32]) -> f64 {
    let wins: f64 = attacks
        .iter()
        .map(|attack| {
            let below = benign.partition_point(|score| score < attack);
            let upto = benign.partition_point(|score| score <= attack);
            below as f64 + (upto - below) as f64 / 2.0
        })
        .sum();
    wins / (benign.len() as f64 * attacks.len() as f64)
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} harmless requests, {} attacks (distinct ones)", self.benign, self.attacks)?;
        writeln!(f, "ROC-AUC {:.4}", self.roc_auc)?;
        for rate in &self.rates {
            write!(f, "TPR {:.4} at FPR {:.0e}", rate.tpr, rate.fpr)?;
            writeln!(
                f,
                "{}",
                if rate.supported { "" } else { "  (too few harmless requests for this rate)" }
            )?;
        }
        let AtThreshold { threshold, fpr, tpr } = self.own;
        writeln!(f, "at the model's own threshold {threshold:.2}: TPR {tpr:.4}, FPR {fpr:.5}")?;
        writeln!(
            f,
            "\n{:<28} {:>8} {:>8} {:>9} {:>9} {:>9}",
            "class", "attacks", "ROC-AUC", "TPR@1e-2", "@1e-3", "@1e-4"
        )?;
        for class in &self.classes {
            write!(f, "{:<28} {:>8} {:>8.4}", class.class, class.attacks, class.roc_auc)?;
            for tpr in &class.tpr {
                write!(f, " {tpr:>9.4}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_counted_by_hand() {
        let benign: Vec<f32> = (0..1000).map(|score| score as f32).collect();
        let attacks = BTreeMap::from([
            ("easy".to_owned(), vec![2000.0; 3]),
            ("mixed".to_owned(), vec![-1.0, 995.5, 499.5, 999.0]),
        ]);
        let found = measure(benign, attacks, 995.0).unwrap();
        assert_eq!((found.benign, found.attacks), (1000, 7));
        // Ten harmless requests may exceed the threshold: it is the eleventh from above.
        assert_eq!((found.rates[0].threshold, found.rates[0].supported), (989.0, true));
        assert!((found.rates[0].tpr - 5.0 / 7.0).abs() < 1e-12);
        assert_eq!(found.rates[1].threshold, 998.0);
        assert!(!found.rates[2].supported);
        assert_eq!((found.curve[0].0, found.curve.last()), (0.0, Some(&(1.0, 1.0))));
        assert!(found.curve.is_sorted());
        assert_eq!((found.own.fpr, found.own.tpr), (0.005, 5.0 / 7.0));
        assert!((found.classes[0].roc_auc - 1.0).abs() < 1e-12);
        let mixed = (0.0 + 996.0 + 500.0 + 999.5) / 4000.0;
        assert!((found.classes[1].roc_auc - mixed).abs() < 1e-12);
        assert!((found.roc_auc - (3.0 + 4.0 * mixed) / 7.0).abs() < 1e-12);
    }

    #[test]
    fn one_sided_files_are_refused() {
        let message = measure(vec![1.0], BTreeMap::new(), 1.0).unwrap_err().to_string();
        assert!(message.contains("1 harmless requests and 0 attacks"), "{message}");
    }
}
