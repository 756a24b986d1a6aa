//! How many rare events are too many to be luck.

/// Chance at which a count is still taken for luck: the 99.9 % bound.
const LUCK: f64 = 0.001;

/// The quantile of the normal distribution that belongs to it.
const DEVIATIONS: f64 = 3.090_232;

/// Mean from which on the normal distribution with a correction for skewness is exact enough.
const MANY: f64 = 500.0;

/// The least count that a Poisson variable with this `mean` exceeds with a chance of at most one in a thousand.
pub fn bound(mean: f64) -> u64 {
    if mean.is_nan() || mean <= 0.0 {
        return 0;
    }
    if mean > MANY {
        // Cornish and Fisher's expansion to the first order.
        let bound = mean + DEVIATIONS * mean.sqrt() + (DEVIATIONS.powi(2) - 1.0) / 6.0;
        return bound.ceil() as u64;
    }
    let (mut count, mut term) = (0, (-mean).exp());
    let mut at_most = term;
    while 1.0 - at_most > LUCK && count < 10 * MANY as u64 {
        count += 1;
        term *= mean / count as f64;
        at_most += term;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        // From the cumulative distribution: P(X <= 3 | 0.5) = 0.99825, P(X <= 4 | 0.5) = 0.99983.
        for (mean, expected) in
            [(0.0, 0), (f64::NAN, 0), (0.000_5, 0), (0.01, 1), (0.5, 4), (1.0, 5), (10.0, 21)]
        {
            assert_eq!(bound(mean), expected, "mean {mean}");
        }
        let (before, after) = (bound(499.9), bound(500.1));
        assert!(after >= before && after - before <= 1, "{before} and {after}");
    }
}
