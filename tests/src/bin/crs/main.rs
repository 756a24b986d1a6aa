//! Runs the regression tests of the OWASP Core Rule Set on our engine, in process, and counts.
//!
//! Exit code 0 means: every rule was loaded, every test was understood, and every test passes but those that the
//! list of exceptions names with a reason.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod arguments;
mod backend;
mod exceptions;
mod format;
mod judge;
mod material;
mod report;
mod request;
mod strict;
mod wire;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Result;

use crate::{arguments::Arguments, exceptions::Exceptions, judge::Judge, material::Material, report::Report};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to do if standard error is gone, too.
            let _ = writeln!(io::stderr(), "crs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything is as it should be.
fn run() -> Result<bool> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let material = Material::find(&arguments)?;
    let exceptions = Exceptions::read(&material.exceptions)?;
    let files = material.tests()?;
    let judge = Judge::new(&material)?;
    let mut report = Report::new(exceptions, arguments.details);
    for file in &files {
        report.file();
        for test in file.tests.iter().filter(|test| arguments.wants(&test.id)) {
            let verdict = judge.judge(test)?;
            report.test(&file.group, &test.id, verdict)?;
        }
    }
    let complete = arguments.only.is_none();
    report.summary(&mut io::stdout().lock(), &judge.description(), complete)
}
