//! What a certificate promises, in words.

use waf_model::model::{
    calibration::{Certificate, Standing},
    groups::Group,
};

/// The promise of a certificate; `unit` is what it counts.
pub fn in_words(certificate: &Certificate, unit: &str) -> String {
    let standing = match certificate.standing {
        Standing::Certified => "certified",
        Standing::Provisional => "provisional",
    };
    format!(
        "{standing}: at most {:.2e} false positives per {unit} at {:.0} % confidence, from {} of them",
        certificate.budget,
        certificate.confidence * 100.0,
        certificate.n
    )
}

/// The promise behind rejecting a request of a group, and whose it is.
pub fn of_group(group: &Group<'_>) -> String {
    format!("{}: {}", group.members(), in_words(group.certificate(), "request"))
}
