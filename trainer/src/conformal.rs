//! What a threshold can promise: split conformal prediction with a stated confidence.
//!
//! Of `n` calibration scores, flag everything that exceeds the `k`-th largest. For exchangeable scores without
//! ties the true false-positive rate of that threshold is distributed as Beta(k, n - k + 1) (Vovk 2012,
//! "Conditional validity of inductive conformal predictors"), and `P[Beta(k, n - k + 1) <= a]` equals
//! `P[Binomial(n, a) >= k]`. The largest `k` for which that is at least the confidence asked for gives the
//! lowest threshold, and so the most detection, that still keeps the budget. Ties only lower the true rate.

/// A threshold by its rank among the calibration scores, and what it promises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// The threshold is the `k`-th largest score; what exceeds it is flagged.
    pub k: u64,
    /// The rate that is promised.
    pub budget: f64,
    /// Whether `budget` is what was asked for; if not, it is the tightest that `n` scores can certify.
    pub reached: bool,
}

/// The best rank for `budget` with `confidence`, among `n` calibration scores; `None` for `n = 0`.
pub fn rank(n: u64, budget: f64, confidence: f64) -> Option<Rank> {
    if n == 0 {
        return None;
    }
    if at_least(n, budget, 1) < confidence {
        return Some(Rank { k: 1, budget: tightest(n, confidence), reached: false });
    }
    // The probability falls as k grows: find the last k that keeps the confidence.
    let (mut keeps, mut fails) = (1, n + 1);
    while fails - keeps > 1 {
        let middle = keeps + (fails - keeps) / 2;
        if at_least(n, budget, middle) >= confidence { keeps = middle } else { fails = middle }
    }
    Some(Rank { k: keeps, budget, reached: true })
}

/// The tightest rate that `n` scores can certify: with `k = 1`, the `a` for which `1 - (1 - a)^n` is `confidence`.
pub fn tightest(n: u64, confidence: f64) -> f64 {
    if n == 0 {
        return 1.0;
    }
    -f64::exp_m1(f64::ln_1p(-confidence) / n as f64)
}

/// The rate that `flagged` of `n` keep with `confidence`: the upper end of Clopper and Pearson's interval.
pub fn upper(n: u64, flagged: u64, confidence: f64) -> f64 {
    if flagged >= n {
        return 1.0;
    }
    let (mut below, mut above) = (0.0, 1.0);
    for _ in 0..100 {
        let middle = 0.5 * (below + above);
        if at_least(n, middle, flagged + 1) >= confidence { above = middle } else { below = middle }
    }
    above
}

/// `P[Binomial(n, p) >= k]`, which is also `P[Beta(k, n - k + 1) <= p]`.
pub fn at_least(n: u64, p: f64, k: u64) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if k > n {
        return 0.0;
    }
    incomplete_beta(k as f64, (n - k + 1) as f64, p)
}

/// Regularized incomplete beta function I_x(a, b), by the continued fraction of DLMF 8.17.22, evaluated by
/// Lentz's method.
pub fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * f64::ln_1p(-x)).exp();
    // The fraction converges fast only on this side; the other follows by symmetry.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(a, b, x) / a
    } else {
        1.0 - front * beta_fraction(b, a, 1.0 - x) / b
    }
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..100_000_u32 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away_from_zero(1.0 + even * d);
        c = away_from_zero(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away_from_zero(1.0 + odd * d);
        c = away_from_zero(1.0 + odd / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

/// ln Gamma(x) for x > 0: Stirling's series (DLMF 5.11.1) after shifting the argument to at least 10.
fn ln_gamma(x: f64) -> f64 {
    let mut shift = 0.0;
    let mut x = x;
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let square = x * x;
    let series = 1.0 / 12.0
        - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / (1188.0 * square)) / square) / square)
            / square;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series / x - shift
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::{
        Xoshiro256PlusPlus,
        rand_core::{RngCore, SeedableRng},
    };

    use super::*;

    #[test]
    fn ln_gamma_is_the_log_of_the_factorial() {
        let mut factorial = 0.0;
        for n in 1..60_u32 {
            assert!((ln_gamma(f64::from(n)) - factorial).abs() < 1e-11 * (1.0 + factorial), "{n}");
            factorial += f64::from(n).ln();
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-13);
    }

    #[test]
    fn the_upper_end_of_an_interval_is_the_published_one() {
        assert!((upper(100, 0, 0.95) - tightest(100, 0.95)).abs() < 1e-9);
        // Clopper and Pearson, one-sided 97.5 %: 5 of 100 gives 0.1128.
        assert!((upper(100, 5, 0.975) - 0.1128).abs() < 1e-4, "{}", upper(100, 5, 0.975));
        assert_eq!(upper(3, 3, 0.95), 1.0);
    }

    #[test]
    fn the_tail_equals_the_sum_of_the_binomial() {
        for (n, p) in [(1_u32, 0.3), (10, 0.1), (40, 0.9), (200, 0.02), (1000, 0.5)] {
            let mut probability = f64::from(n) * f64::ln_1p(-p);
            let mut below = 0.0;
            for k in 0..=n {
                let tail = at_least(u64::from(n), p, u64::from(k));
                assert!((tail - (1.0 - below)).abs() < 1e-10, "n {n} p {p} k {k}: {tail}");
                below += probability.exp();
                probability += (f64::from(n - k) / f64::from(k + 1)).ln() + (p / (1.0 - p)).ln();
            }
        }
    }

    #[test]
    fn the_ranks_are_those_of_the_published_table() {
        let k = |n, budget| rank(n, budget, 0.95).unwrap();
        for (n, budget, expected) in [
            (100_000, 1e-3, 84),
            (100_000, 1e-4, 5),
            (1_000_000, 1e-4, 84),
            (3_000_000, 1e-4, 272),
            (1_000_000, 1e-5, 5),
            (3_000_000, 1e-5, 21),
            (10_000_000, 1e-5, 84),
            (3_000_000, 1e-6, 1),
            (10_000_000, 1e-6, 5),
        ] {
            assert_eq!(k(n, budget), Rank { k: expected, budget, reached: true }, "n {n} budget {budget}");
        }
        for (budget, least) in [(1e-3, 2_996), (1e-4, 29_958), (1e-5, 299_574), (1e-6, 2_995_733)] {
            let certified = (least - 3..=least).find(|&n| k(n, budget).reached);
            assert!(certified.is_some(), "budget {budget} needs about {least} scores");
            assert!(!k(least - 4, budget).reached, "budget {budget} with {} scores", least - 4);
        }
    }

    #[test]
    fn too_few_scores_give_the_tightest_budget_that_they_carry() {
        assert_eq!(rank(0, 0.1, 0.95), None);
        let few = rank(100, 1e-3, 0.95).unwrap();
        assert!(few.k == 1 && !few.reached);
        assert!((few.budget - 0.029_513).abs() < 1e-6, "{}", few.budget);
        assert!((at_least(100, few.budget, 1) - 0.95).abs() < 1e-12);
    }

    #[test]
    fn the_promise_is_kept_in_simulation() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut uniform = move || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let (n, budget, confidence, rounds) = (400, 0.02, 0.9, 2000);
        let k = rank(n, budget, confidence).unwrap().k;
        let mut kept = 0;
        for _ in 0..rounds {
            let mut scores: Vec<f64> = (0..n).map(|_| uniform()).collect();
            scores.sort_by(f64::total_cmp);
            // For uniform scores the true rate of exceeding a threshold t is 1 - t.
            let true_rate = 1.0 - scores[(n - k) as usize];
            kept += u32::from(true_rate <= budget);
        }
        let share = f64::from(kept) / f64::from(rounds);
        let exact = at_least(n, budget, k);
        assert!(share >= confidence - 0.02, "kept in {share}, promised {confidence}");
        assert!((share - exact).abs() < 0.03, "kept in {share}, expected {exact}");
    }
}
