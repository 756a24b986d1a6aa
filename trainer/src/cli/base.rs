//! `trainer base`: trains the base knowledge, or judges it on what it never saw.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use waf_model::rules::RuleSet;

use crate::{
    base::{
        card,
        corpus::Corpus,
        learn,
        split::{self, By, REJECTED},
    },
    durable,
    rules::Rules,
};

/// Attacks that each grammar makes.
const GENERATED: usize = 600;

/// The paranoia level at which rules are judged beside the base, and the points from which on they withhold a response.
const PARANOIA: u8 = 1;
const WITHHELD: u32 = 4;

/// Arguments of `trainer base`.
#[derive(Debug, Args)]
pub struct BaseArgs {
    /// Labelled requests, JSON lines, plain or gzip: attacks and harmless ones.
    #[arg(long, num_args = 1.., required = true)]
    input: Vec<PathBuf>,
    /// Harmless requests that are only judged, never learned from; for --evaluate.
    #[arg(long, num_args = 1..)]
    unseen: Vec<PathBuf>,
    /// Where to write the base.
    #[arg(long, required_unless_present = "evaluate")]
    output: Option<PathBuf>,
    /// Learn from one half of the sites and payloads and judge the other half.
    #[arg(long)]
    evaluate: bool,
    /// Rule files, judged beside the base; `builtin` stands for the gateway's own.
    #[arg(long, num_args = 1..)]
    rules: Vec<PathBuf>,
    /// Number of splits, for --evaluate.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// How attacks are split.
    #[arg(long, value_enum, default_value_t = By::Payload)]
    by: By,
    /// Take every n-th request only: for a quick look.
    #[arg(long, default_value_t = 1)]
    step: usize,
    /// Write what was judged wrongly to a file: such requests are in it as they are.
    #[arg(long)]
    wrong: Option<PathBuf>,
}

impl BaseArgs {
    /// Does what was asked.
    ///
    /// # Errors
    /// A file cannot be read or written, or holds too little.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        let rules = match self.rules.as_slice() {
            [] => None,
            paths => Some(Rules::read(paths)?.compile(PARANOIA, (REJECTED, WITHHELD))?),
        };
        let mut corpus = Corpus::default();
        corpus.generate(1, GENERATED, rules.as_ref());
        corpus.read(&self.input, self.step.max(1), rules.as_ref())?;
        if self.evaluate {
            return self.evaluate(corpus, rules.as_ref(), out);
        }
        let (facts, learned) = learn(&corpus, &|request| request.is_learnable())?;
        write!(out, "{}", card::summary(&corpus, &facts, &learned))?;
        let path = self.output.as_deref().context("name a file with --output")?;
        durable::write(path, facts.write().as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(out, "written {}", path.display())?;
        Ok(())
    }

    fn evaluate(&self, mut corpus: Corpus, rules: Option<&RuleSet>, out: &mut dyn Write) -> Result<()> {
        let seen = corpus.files.len();
        corpus.read(&self.unseen, self.step.max(1), rules)?;
        let mut wrong = self.wrong.as_ref().map(std::fs::File::create).transpose()?;
        let table = split::evaluate(
            &corpus,
            1..=self.seeds,
            self.by,
            &|request| usize::from(request.file) >= seen,
            |name, text, score, threshold| {
                if let Some(wrong) = &mut wrong {
                    let text = String::from_utf8_lossy(text.get(..300).unwrap_or(text)).into_owned();
                    let _ = writeln!(wrong, "{name}\t{score:.2}\t{threshold:.2}\t{text:?}");
                }
            },
        )?;
        write!(out, "{table}")?;
        Ok(())
    }
}
