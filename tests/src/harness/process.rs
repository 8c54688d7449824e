//! Child processes: what they say, how they end. None outlives its test.

use crate::harness::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running child, killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// From the call that waited to the end.
    pub took: Duration,
}

impl Process {
    /// Starts a command.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        Self::start_as(command.get_program().to_string_lossy().into_owned(), command)
    }

    /// Starts a program that the kernel kills when the calling thread ends, also where no destructor runs: in a
    /// test run that is killed, above all.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn leashed(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        // Of util-linux, which every Debian has; the system call itself would be unsafe code here.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        Self::start_as(program.to_string_lossy().into_owned(), &mut command)
    }

    fn start_as(name: String, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            keep(child.stdout.take().expect("piped"), Arc::clone(&stdout)),
            keep(child.stderr.take().expect("piped"), Arc::clone(&stderr)),
        ];
        Self { name, child, stdout, stderr, readers }
    }

    /// Memory that it has, in bytes.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a running process has memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line of standard error that holds `text`, and returns it.
    ///
    /// # Panics
    /// At the deadline.
    pub fn wait_for_stderr(&mut self, text: &str) -> String {
        let what = format!("{} should say `{text}`", self.name);
        wait::until(&what, || {
            assert!(self.is_running(), "{} ended before it said `{text}`", self.name);
            self.stderr().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends SIGINT.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Stops it where it is, until [`Self::resume`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it runs on past the deadline of [`wait::GENEROUS`].
    #[must_use]
    pub fn wait(mut self) -> Ended {
        let started = Instant::now();
        let what = format!("{} should end", self.name);
        let status = wait::until(&what, || self.child.try_wait().expect("a child can be waited for"));
        let took = started.elapsed();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Ended { status, stdout: self.stdout(), stderr: self.stderr(), took }
    }

    fn signal(&self, signal: Signal) {
        // Not waited for yet, so the id is still this child's.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let (out, err) = (self.stdout(), self.stderr());
            // The test's own output is where a person looks for the reason.
            eprint_all(&format!("--- {} said on stdout:\n{out}--- and on stderr:\n{err}---\n", self.name));
        }
    }
}

#[allow(clippy::print_stderr, reason = "libtest captures it and shows it for a failed test only")]
fn eprint_all(text: &str) {
    eprint!("{text}");
}

fn keep(from: impl Read + Send + 'static, to: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            to.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}
