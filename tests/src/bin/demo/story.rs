//! What the demo says, and what did not go as promised.

use std::{
    io::{self, Write as _},
    time::Instant,
};

/// Tells the story on standard output.
#[derive(Debug)]
pub(crate) struct Story {
    started: Instant,
    chapters: u32,
    failures: Vec<String>,
}

impl Story {
    /// The clock starts now.
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), chapters: 0, failures: Vec::new() }
    }

    /// Starts a new part.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        self.write(&format!("\n[{:5.1} s] {}. {title}", self.started.elapsed().as_secs_f64(), self.chapters));
    }

    /// Says one line.
    pub(crate) fn line(&mut self, text: &str) {
        self.write(&format!("  {text}"));
    }

    /// Shows a command and what it printed.
    pub(crate) fn command(&mut self, command: &str, output: &str, most_lines: usize) {
        self.write(&format!("\n  $ {command}"));
        let lines: Vec<&str> = output.lines().collect();
        for line in lines.iter().take(most_lines) {
            self.write(&format!("  {line}"));
        }
        if lines.len() > most_lines {
            self.write(&format!("  ... {} more lines", lines.len() - most_lines));
        }
    }

    /// Notes that a promise was not kept.
    pub(crate) fn fail(&mut self, what: String) {
        self.line(&format!("NOT AS PROMISED: {what}"));
        self.failures.push(what);
    }

    /// Promises that were not kept.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    fn write(&mut self, text: &str) {
        // When nobody reads any more there is nobody to tell.
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}
