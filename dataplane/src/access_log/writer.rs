//! The writer of the access log: a thread that takes batches and waits for nobody but the file.

use super::output::Output;
use super::{
    AccessLogError, AccessLogOptions, BATCH_BYTES_MAX, BATCH_RECORDS_MAX, BATCHES_WAITING_MAX, Counts,
    Format, LAST_WRITE_LIMIT, LINE_BYTES_MAX, Share, Which,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// What goes wrong is told once in so long; it is counted always.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Whole lines.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) records: u32,
}

impl Batch {
    /// Whether there may be no room for another line.
    pub(super) fn is_full(&self) -> bool {
        self.records >= BATCH_RECORDS_MAX || self.bytes.len() + LINE_BYTES_MAX > BATCH_BYTES_MAX
    }
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    Lines(Batch),
    /// The file may have another name by now.
    Reopen,
}

/// Where workers hand in what they have, and what they go by.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(super) format: Format,
    pub(super) share: Share,
    pub(super) which: Which,
    pub(super) counts: Arc<Counts>,
    to_writer: mpsc::Sender<Message>,
}

impl Desk {
    /// With where the writer takes from.
    pub(super) fn new(options: &AccessLogOptions) -> (Self, mpsc::Receiver<Message>) {
        let (to_writer, messages) = mpsc::channel(BATCHES_WAITING_MAX);
        let AccessLogOptions { format, share, which, .. } = *options;
        (Self { format, share, which, counts: Arc::default(), to_writer }, messages)
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Takes a batch, which is empty then. `false` where there is no room for it.
    pub(super) fn take(&self, batch: &mut Batch) -> bool {
        match self.to_writer.try_reserve() {
            Ok(room) => {
                room.send(Message::Lines(std::mem::take(batch)));
                true
            }
            Err(_) => false,
        }
    }
}

/// The writer, for who started it.
#[derive(Debug)]
pub(crate) struct Writing {
    counts: Arc<Counts>,
    ended: oneshot::Receiver<()>,
    /// Waits for SIGHUP, where there is a file.
    hangups: Option<JoinHandle<()>>,
}

impl Writing {
    /// What became of lines.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Waits until what workers that have ended handed in is written, for [`LAST_WRITE_LIMIT`] at most.
    pub(crate) async fn finish(self) {
        self.hangups.iter().for_each(JoinHandle::abort);
        if tokio::time::timeout(LAST_WRITE_LIMIT, self.ended).await.is_err() {
            tracing::warn!("the last lines of the access log could not be written in time");
        }
    }
}

/// Opens the log and starts its writer, which ends when no [`Desk`] is left.
///
/// # Errors
/// [`AccessLogError`]: there is no file, no standard output, or no thread.
pub(crate) fn start(options: &AccessLogOptions) -> Result<(Desk, Writing), AccessLogError> {
    let output = match &options.file {
        Some(path) => {
            Output::open(path).map_err(|source| AccessLogError::Open { path: path.clone(), source })?
        }
        None => Output::stdout().map_err(AccessLogError::Start)?,
    };
    let (desk, ended) = spawn(options, output)?;
    let hangups = options.file.is_some().then(|| reopen_at_hangups(&desk)).transpose()?;
    let counts = Arc::clone(&desk.counts);
    Ok((desk, Writing { counts, ended, hangups }))
}

pub(super) fn spawn(
    options: &AccessLogOptions,
    output: Output,
) -> Result<(Desk, oneshot::Receiver<()>), AccessLogError> {
    let (desk, messages) = Desk::new(options);
    let (end, ended) = oneshot::channel();
    let writer = Writer::new(output, Arc::clone(&desk.counts));
    let work = move || {
        writer.run(messages);
        drop(end);
    };
    std::thread::Builder::new().name("access-log".to_owned()).spawn(work).map_err(AccessLogError::Start)?;
    Ok((desk, ended))
}

/// What rotates logs says so in this way. Without a handler the signal would end the process.
fn reopen_at_hangups(desk: &Desk) -> Result<JoinHandle<()>, AccessLogError> {
    let mut hangups = signal(SignalKind::hangup()).map_err(AccessLogError::Start)?;
    // The writer ends with the workers, and not with this.
    let to_writer = desk.to_writer.downgrade();
    Ok(tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            let Some(to_writer) = to_writer.upgrade() else { return };
            // A writer that is behind looks at the path by itself.
            let _ = to_writer.try_send(Message::Reopen);
        }
    }))
}

pub(super) struct Writer {
    output: Output,
    counts: Arc<Counts>,
    /// A line was begun and not ended.
    is_torn: bool,
    complained: Option<Instant>,
}

impl Writer {
    pub(super) fn new(output: Output, counts: Arc<Counts>) -> Self {
        Self { output, counts, is_torn: false, complained: None }
    }

    fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Lines(batch) => self.write(&batch),
                Message::Reopen => self.reopen(),
            }
        }
    }

    pub(super) fn reopen(&mut self) {
        match self.output.reopen() {
            Ok(is_another) => self.is_torn &= !is_another,
            Err(error) => self.complain(&error, "the access log's file cannot be opened again"),
        }
    }

    /// Writes what it can of a batch, and counts.
    pub(super) fn write(&mut self, batch: &Batch) {
        if self.output.has_moved(Instant::now()) {
            self.reopen();
        }
        let mut bytes = &batch.bytes[..];
        let mended = if self.is_torn { self.output.write(b"\n") } else { Ok(()) };
        let written = match mended {
            Ok(()) => {
                self.is_torn = false;
                self.output.write_some(&mut bytes)
            }
            Err(error) => Err(error),
        };
        let gone = &batch.bytes[..batch.bytes.len() - bytes.len()];
        self.is_torn |= gone.last().is_some_and(|last| *last != b'\n');
        let records = memchr::memchr_iter(b'\n', gone).count() as u64;
        self.counts.wrote(records);
        if let Err(error) = written {
            self.counts.dropped_more(u64::from(batch.records) - records);
            self.complain(&error, "lines of the access log cannot be written");
        }
    }

    fn complain(&mut self, error: &std::io::Error, what: &str) {
        let now = Instant::now();
        if self.complained.is_none_or(|last| now.duration_since(last) >= COMPLAINT_INTERVAL) {
            self.complained = Some(now);
            tracing::warn!(to = %self.output, %error, dropped = self.counts.dropped(), "{what}");
        }
    }
}

#[cfg(test)]
mod tests;
