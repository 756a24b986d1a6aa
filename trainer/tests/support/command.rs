//! What several tests of the trainer's commands share.

use std::{path::Path, process::Command};

/// Runs `trainer` on a state directory: exit code, output and errors.
pub(crate) fn trainer(state: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(args)
        .env("PORTCULLIS_STATE", state)
        .env_remove("PORTCULLIS_STORE")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}
