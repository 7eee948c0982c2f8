//! A command before a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::openpty;

/// How long it may show nothing, in milliseconds.
const SILENT: u16 = 30_000;

/// The program, and what its terminal has shown.
pub struct Session {
    child: Child,
    pub terminal: File,
    shown: String,
    heard: usize,
}

impl Session {
    pub fn start(mut command: Command) -> Self {
        let pair = openpty(None, None).unwrap();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { child, terminal: File::from(pair.master), shown: String::new(), heard: 0 }
    }

    /// Reads on; whether there was more.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let mut waiting = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        // It would be waited for an answer to another question, for ever.
        assert!(poll(&mut waiting, SILENT).unwrap() > 0, "it waits at\n{}", self.shown);
        // When the last one who has the other end is gone, this is an error.
        let count = self.terminal.read(&mut bytes).unwrap_or(0);
        self.shown += str::from_utf8(&bytes[..count]).unwrap();
        count > 0
    }

    /// Waits for a question, and answers it.
    pub fn answer(&mut self, question: &str, answer: &str) {
        loop {
            if let Some(at) = self.shown[self.heard..].find(question) {
                self.heard += at + question.len();
                break;
            }
            assert!(self.read(), "no `{question}` in\n{}", self.shown);
        }
        self.terminal.write_all(answer.as_bytes()).unwrap();
    }

    /// Waits for the end.
    pub fn ended(mut self) -> (String, Option<i32>) {
        while self.read() {}
        (self.shown.replace("\r\n", "\n"), self.child.wait().unwrap().code())
    }
}
