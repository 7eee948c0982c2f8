//! The log's way to standard error: a thread writes it, many lines at once where many come, and holds up
//! nobody. Whoever reads it may stall (a pipe into a pager); what cannot wait any more is lost then.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::pure::printable;

/// How many bytes may wait to be written: some ten thousand lines.
const MOST: usize = 2 << 20;
/// How long more is waited for, once something came: each write costs the same, however much it is.
const GATHER: Duration = Duration::from_millis(10);
/// How long the rest may take at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines go in.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// How many lines were lost since the last write.
    lost: u64,
    /// Whether the thread has written all that it was given.
    is_idle: bool,
    is_over: bool,
}

/// Has the rest written when it is dropped.
#[derive(Debug)]
pub struct Rest {
    log: Log,
    writer: Option<JoinHandle<()>>,
}

impl Log {
    /// Starts the thread that writes to `to`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(to: impl Write + Send + 'static) -> io::Result<(Self, Rest)> {
        let log = Self::default();
        let shared = Arc::clone(&log.0);
        let run = move || shared.write_all(to);
        let writer = thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok((log.clone(), Rest { log, writer: Some(writer) }))
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, until it is over.
    fn write_all(&self, mut to: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.waiting();
            while waiting.lines.is_empty() && !waiting.is_over {
                waiting.is_idle = true;
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            waiting.is_idle = false;
            if waiting.lines.is_empty() {
                return;
            }
            if !waiting.is_over {
                drop(waiting);
                thread::sleep(GATHER);
                waiting = self.waiting();
            }
            std::mem::swap(&mut lines, &mut waiting.lines);
            let lost = std::mem::take(&mut waiting.lost);
            drop(waiting);
            // Whoever read it may have gone: that is no reason to stop, nor to complain to nobody.
            to.write_all(&lines).ok();
            if lost > 0 {
                writeln!(to, "reveille: {lost} lines of the log were lost: they came faster than they were read").ok();
            }
            to.flush().ok();
            lines.clear();
        }
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // What a line repeats came from anywhere.
        let text = String::from_utf8_lossy(line);
        let shown = printable::log(&text);
        let mut waiting = self.0.waiting();
        if waiting.lines.len() + shown.len() > MOST {
            waiting.lost += 1;
        } else {
            waiting.lines.extend_from_slice(shown.as_bytes());
            if waiting.is_idle {
                waiting.is_idle = false;
                self.0.changed.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.log.0.waiting().is_over = true;
        self.log.0.changed.notify_one();
        let Some(writer) = self.writer.take() else {
            return;
        };
        // A reader that has stalled shall not keep us from our end.
        for _ in 0..PATIENCE.as_millis() / GATHER.as_millis() {
            if writer.is_finished() {
                return;
            }
            thread::sleep(GATHER);
        }
    }
}

/// Runs `body` with a subscriber of this thread.
///
/// While only one dispatcher exists, tracing lets the thread that first meets a log line decide, and switches the
/// line off for all threads if that one has no subscriber. A second dispatcher makes it ask both.
#[cfg(test)]
pub(crate) fn with_subscriber(
    subscriber: impl tracing::Subscriber + Send + Sync + 'static,
    body: impl FnOnce(),
) {
    use tracing::subscriber::NoSubscriber;
    static SECOND: std::sync::OnceLock<tracing::Dispatch> = std::sync::OnceLock::new();
    SECOND.get_or_init(|| tracing::Dispatch::new(NoSubscriber::default()));
    tracing::subscriber::with_default(subscriber, body);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that takes what is written when it wants to.
    struct Reader(mpsc::SyncSender<Vec<u8>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_whole_in_their_order_and_the_rest_at_the_end() {
        let (sender, reader) = mpsc::sync_channel(1000);
        let (mut log, rest) = Log::start(Reader(sender)).unwrap();
        for number in 0..1000 {
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        drop((rest, log));
        let text: Vec<u8> = reader.iter().flatten().collect();
        let expected: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_reader_that_stalls_holds_up_nobody_and_is_told_what_it_missed() {
        let (sender, reader) = mpsc::sync_channel(0);
        let (mut log, rest) = Log::start(Reader(sender)).unwrap();
        let line = [b'x'; 1023];
        for _ in 0..5000 {
            log.write_all(&line).unwrap();
        }
        let reading = thread::spawn(move || reader.iter().flatten().collect::<Vec<u8>>());
        drop((rest, log));
        let text = reading.join().unwrap();
        let kept = text.iter().filter(|c| **c == b'x').count() / line.len();
        assert!((2000..5000).contains(&kept), "{kept}");
        let told = String::from_utf8_lossy(&text);
        assert!(told.contains("lines of the log were lost"), "{}", &told[told.len() - 100..]);
    }

    #[test]
    fn what_turns_a_line_round_or_hides_in_it_is_escaped_on_its_way_to_the_log() {
        let (sender, reader) = mpsc::sync_channel(1000);
        let (log, rest) = Log::start(Reader(sender)).unwrap();
        let subscriber =
            tracing_subscriber::fmt().with_writer(log).with_ansi(false).without_time().finish();
        with_subscriber(subscriber, || {
            tracing::info!("a\u{202e}b\u{2028}c\u{200b}\u{feff}d\u{85}\u{1b}[2Je");
        });
        drop(rest);
        let text: Vec<u8> = reader.iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        let rest = text.split_once("a\\u{202e}b\\u{2028}c\\u{200b}\\u{feff}d").unwrap().1;
        assert!(rest.ends_with("[2Je\n"), "{text}");
        assert!(!rest.trim_end().contains(crate::pure::printable::is_hidden), "{text}");
    }
}
