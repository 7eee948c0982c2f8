//! Questions on the terminal. They go to standard error, as all that is no result.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use nix::unistd::read;

use crate::cli::output::{prompt, tell};
use crate::pure::catalog::secret::SecretText;

/// The most that is read of a secret, in bytes.
const MOST: usize = 64 << 10;

/// How long the rest of a paste may take, in milliseconds.
const PASTE: u8 = 100;

/// A terminal with somebody before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal;

impl Terminal {
    /// The terminal, where there is one.
    pub(super) fn here() -> Option<Self> {
        (io::stdin().is_terminal() && io::stderr().is_terminal()).then_some(Self)
    }

    /// One line; nothing is the default.
    pub(super) fn ask(self, question: &str, default: &str) -> Result<String> {
        match default {
            "" => prompt(question),
            default => prompt(format_args!("{question} [{default}]")),
        }
        let mut line = String::new();
        if io::stdin().read_line(&mut line).context("cannot read the terminal")? == 0 {
            tell("");
            bail!("not all questions were answered; nothing was written");
        }
        let answer = line.trim();
        Ok(if answer.is_empty() { default } else { answer }.to_owned())
    }

    /// Asks until the answer can be read.
    pub(super) fn ask_for<T>(
        self,
        question: &str,
        default: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T> {
        loop {
            match read(&self.ask(question, default)?) {
                Ok(value) => return Ok(value),
                Err(reason) => tell(format_args!("  {reason}")),
            }
        }
    }

    /// Yes, which is the default, or no.
    pub(super) fn confirm(self, question: &str) -> Result<bool> {
        self.ask_for(question, "Y/n", |answer| match answer.to_ascii_lowercase().as_str() {
            "y/n" | "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("answer y or n".to_owned()),
        })
    }
}

/// Reads a secret from standard input: all of it, or on a terminal what is pasted, which is not shown.
pub(super) fn secret(what: &str) -> Result<SecretText> {
    if io::stdin().is_terminal() {
        return hidden(what);
    }
    let mut text = String::new();
    let rest = io::stdin().lock().take(MOST as u64).read_to_string(&mut text);
    rest.with_context(|| format!("cannot read {what} from standard input"))?;
    Ok(text.into())
}

/// Reads what is pasted, without an echo, up to an empty line.
fn hidden(what: &str) -> Result<SecretText> {
    let shown = tcgetattr(io::stdin()).context("cannot read the terminal's settings")?;
    let _shown_again = ShownAgain(shown.clone());
    let mut hidden = shown;
    // Byte by byte: the terminal's own lines end at 4096. Ctrl-C comes as a byte, so that it does not
    // end the program before the echo is on again.
    let off = LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::IEXTEN;
    hidden.local_flags.remove(off | LocalFlags::ECHONL);
    hidden.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    hidden.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden).context("cannot turn off the echo")?;
    prompt(format_args!("Paste {what}, then press Enter on an empty line. It is not shown"));

    let mut paste = Paste::default();
    let mut bytes = [0; 4096];
    loop {
        let count = read(io::stdin(), &mut bytes).context("cannot read the terminal")?;
        match paste.take(&bytes[..count]) {
            // The empty line may be in the middle of what is pasted: the rest shall not show.
            Taken::Ended if more_comes()? => {}
            Taken::Ended => break,
            Taken::More if count > 0 => {}
            Taken::More | Taken::Interrupted => {
                tell("");
                bail!("interrupted; nothing was written");
            }
        }
    }
    tell("");
    Ok(paste.text())
}

fn more_comes() -> Result<bool> {
    let stdin = io::stdin();
    let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut waiting, PollTimeout::from(PASTE)).context("cannot wait for input")?;
    Ok(ready > 0)
}

/// The terminal as it was, with whatever was typed ahead thrown away.
struct ShownAgain(Termios);

impl Drop for ShownAgain {
    fn drop(&mut self) {
        // If it fails the terminal is gone.
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0).ok();
    }
}

/// What has been pasted so far.
#[derive(Default)]
struct Paste(Vec<u8>);

#[derive(Debug, PartialEq, Eq)]
enum Taken {
    More,
    Ended,
    Interrupted,
}

impl Paste {
    /// Takes bytes, with the keys that edit a line.
    fn take(&mut self, bytes: &[u8]) -> Taken {
        let mut closed = false;
        for byte in bytes {
            match byte {
                // Ctrl-C, Ctrl-D, backspace and delete, Ctrl-U.
                0x03 => return Taken::Interrupted,
                0x04 => closed = true,
                0x08 | 0x7f => drop(self.0.pop()),
                0x15 => {
                    let line = self.0.iter().rposition(|byte| *byte == b'\n');
                    self.0.truncate(line.map_or(0, |at| at + 1));
                }
                b'\r' => self.0.push(b'\n'),
                byte if self.0.len() < MOST => self.0.push(*byte),
                _ => {}
            }
        }
        if closed || self.0 == b"\n" || self.0.ends_with(b"\n\n") {
            return Taken::Ended;
        }
        Taken::More
    }

    fn text(self) -> SecretText {
        String::from_utf8_lossy(&self.0).trim().into()
    }
}

/// Whether there is anything in it.
pub(super) fn is_empty(secret: &SecretText) -> bool {
    secret.expose().trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paste_ends_at_an_empty_line_and_can_be_edited() {
        for (chunks, taken, text) in [
            (&[&b"abc"[..]][..], Taken::More, "abc"),
            (&[b"abc\r", b"\r"], Taken::Ended, "abc"),
            (&[b"\n"], Taken::Ended, ""),
            (&[b"abd\x7fc\n", b"xyz", b"\x15\n"], Taken::Ended, "abc"),
            (&[b"abc\x04"], Taken::Ended, "abc"),
            (&[b"a\n\nb", b"\n"], Taken::More, "a\n\nb"),
            (&[b"abc", b"\x03"], Taken::Interrupted, "abc"),
        ] {
            let mut paste = Paste::default();
            let mut last = Taken::More;
            for chunk in chunks {
                last = paste.take(chunk);
            }
            assert_eq!((last, paste.text().expose()), (taken, text), "{chunks:?}");
        }
    }
}
