//! One real process: its output goes to a file, and it ends with the value that owns it.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; standard output and error are appended to `<directory>/<name>.log`.
    ///
    /// # Errors
    /// The program does not start, or the log cannot be written.
    pub fn spawn(name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let log = directory.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The process ends before, or `timeout` passes; the message holds the end of its log.
    pub async fn wait_until<F: AsyncFnMut() -> bool>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut ready: F,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            if ready().await {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}:\n{}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{}: {what} did not happen within {timeout:?}:\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// `timeout` passes.
    pub async fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {timeout:?}:\n{}", self.name, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal by name: `TERM`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status()?;
        if !status.success() {
            bail!("kill -{signal} {} failed: {status}", self.name);
        }
        Ok(())
    }

    /// Kills it at once, as `kill -9` does, and waits for its end.
    ///
    /// # Errors
    /// It had ended already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// CPU time that it has used, user and system together.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The second field, the name, may hold spaces; what follows its closing parenthesis is regular.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        // Fields 14 and 15; Linux counts 100 ticks a second for user space on every architecture.
        Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
    }

    /// Resident memory, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kilobytes.context("no VmRSS in the status of the process")? * 1024)
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program of this workspace was built: beside the running program, or in `$PORTCULLIS_BIN_DIR`.
///
/// # Errors
/// It was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let directory = match env::var_os("PORTCULLIS_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let own = env::current_exe()?;
            let parent = own.parent().context("the running program has no directory")?;
            // Tests lie one level deeper than programs.
            if parent.ends_with("deps") {
                parent.parent().unwrap_or(parent).to_owned()
            } else {
                parent.to_owned()
            }
        }
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing: run `cargo build --bins` with the same profile first (`make test` does)",
            path.display()
        );
    }
    Ok(path)
}
