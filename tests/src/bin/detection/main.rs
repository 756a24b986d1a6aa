//! How well rule sets tell attacks from ordinary requests, on labelled files that are given by their path.
//!
//! Every request of every file goes through each rule set in this process, whole and alone; it counts as blocked
//! when it reaches the default threshold or is denied. A file of attacks shows the true positive rate, a file of
//! harmless requests the false positive rate, each with its 95 % interval.
#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use datasets::labelled::Label;

mod sample;
mod sets;
mod table;

use sample::{Half, Sampling};
use sets::Set;
use table::{Row, Tally};

const USAGE: &str = "\
detection DATA [options]
  DATA            a directory of labelled requests (*.jsonl, *.jsonl.gz), or one such file
  --rules DIR     our own rules; default: gateway/rules
  --crs DIR       a directory with the OWASP Core Rule Set: it is measured too, at levels 1 to 4, and with ours
  --sets A,B      only these columns: own, crs1, crs2, crs3, crs4, both
  --half H        develop or held-out: only that half of each file, split by what the requests say
  --all           every request; else at most 20,000 of a file and label, chosen by a seeded hash
  --classes       a row for each class of a file
  --show WHAT     instead of the table, list one kind of mistake of the first column: fp, missed, or hit (no mistake)
  --jobs N        threads; default: 1";

/// What the command line asks for.
struct Arguments {
    data: PathBuf,
    rules: PathBuf,
    crs: Option<PathBuf>,
    sets: Option<Vec<String>>,
    sampling: Sampling,
    classes: bool,
    show: Option<Show>,
    jobs: usize,
}

/// Which requests `--show` lists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    FalsePositives,
    Missed,
    Hits,
}

fn main() -> Result<()> {
    let Some(arguments) = arguments(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let files = data_files(&arguments.data)?;
    let sets = sets::load(&arguments.rules, arguments.crs.as_deref(), arguments.sets.as_deref())?;
    if let Some(show) = arguments.show {
        return list(&files, &sets, &arguments, show);
    }
    let mut rows = Vec::new();
    for file in &files {
        rows.extend(measure(file, &sets, &arguments)?);
    }
    println!("{}", arguments.sampling);
    print!("{}", table::render(&rows, &sets));
    Ok(())
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>> {
    let mut data = None;
    let mut found = Arguments {
        data: PathBuf::new(),
        rules: Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/rules"),
        crs: None,
        sets: None,
        sampling: Sampling { half: None, all: false },
        classes: false,
        show: None,
        jobs: 1,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value\n{USAGE}"));
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--all" => found.sampling.all = true,
            "--classes" => found.classes = true,
            "--rules" => found.rules = value()?.into(),
            "--crs" => found.crs = Some(value()?.into()),
            "--sets" => found.sets = Some(value()?.split(',').map(str::to_owned).collect()),
            "--jobs" => found.jobs = value()?.parse::<usize>().context("--jobs takes a number")?.max(1),
            "--half" => {
                found.sampling.half = Some(match value()?.as_str() {
                    "develop" => Half::Develop,
                    "held-out" => Half::HeldOut,
                    other => bail!("--half takes develop or held-out, not {other}"),
                });
            }
            "--show" => {
                found.show = Some(match value()?.as_str() {
                    "fp" => Show::FalsePositives,
                    "missed" => Show::Missed,
                    "hit" => Show::Hits,
                    other => bail!("--show takes fp, missed or hit, not {other}"),
                });
            }
            option if option.starts_with('-') => bail!("there is no option {option}\n{USAGE}"),
            _ if data.is_some() => bail!("one DATA at a time\n{USAGE}"),
            _ => data = Some(word.into()),
        }
    }
    found.data = data.with_context(|| format!("DATA is missing\n{USAGE}"))?;
    Ok(Some(found))
}

/// The labelled files that `data` is or holds, by name.
fn data_files(data: &Path) -> Result<Vec<PathBuf>> {
    if data.is_file() {
        return Ok(vec![data.to_owned()]);
    }
    let entries = std::fs::read_dir(data).with_context(|| format!("{} cannot be read", data.display()))?;
    let mut files: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| {
        let name = file.to_string_lossy();
        file.is_file() && (name.ends_with(".jsonl") || name.ends_with(".jsonl.gz"))
    });
    files.sort();
    if files.is_empty() {
        bail!("{} holds no *.jsonl or *.jsonl.gz", data.display());
    }
    Ok(files)
}

/// The rows of one file: one for each label, and for each class if asked.
fn measure(file: &Path, sets: &[Set], arguments: &Arguments) -> Result<Vec<Row>> {
    let requests = arguments.sampling.read(file)?;
    let share = requests.len().div_ceil(arguments.jobs).max(1);
    let tallies: Vec<Vec<(Label, String, Tally)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = requests
            .chunks(share)
            .map(|chunk| {
                scope.spawn(move || {
                    let judge = |request: &datasets::labelled::LabelledRequest| {
                        let blocked = sets.iter().map(|set| set.judge(request).blocked).collect();
                        (request.label, request.class.clone(), Tally::of(blocked))
                    };
                    chunk.iter().map(judge).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let judged: usize = tallies.iter().map(Vec::len).sum();
    if judged != requests.len() {
        bail!("{}: a thread failed; its message stands above", file.display());
    }
    Ok(table::rows(&sample::name_of(file), tallies.into_iter().flatten(), arguments.classes))
}

/// Lists the requests of one kind with what the first set found in them.
fn list(files: &[PathBuf], sets: &[Set], arguments: &Arguments, show: Show) -> Result<()> {
    let set = sets.first().context("no rule set to show")?;
    for file in files {
        for request in arguments.sampling.read(file)? {
            let verdict = set.judge(&request);
            let wanted = match show {
                Show::FalsePositives => request.label == Label::Benign && verdict.blocked,
                Show::Missed => request.label == Label::Attack && !verdict.blocked,
                Show::Hits => request.label == Label::Attack && verdict.blocked,
            };
            if wanted {
                println!("{} [{}] {}", request.id, request.class, verdict.found);
                println!("    {} {}", request.method, request.target);
                if !request.body.is_empty() {
                    println!("    {}", sample::excerpt(&request.body));
                }
            }
        }
    }
    Ok(())
}
