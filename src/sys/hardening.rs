//! What a process must not leave behind: its memory, which holds join tokens, in a core dump; and what was in a
//! text, in the message of a panic.

use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Makes this process one that leaves nothing. Called before anything is read.
pub fn be() {
    // Neither can fail for a process's own; if one did, the other still holds.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // A handler that a host's core_pattern pipes dumps to is not kept off by the limit above; this also keeps
    // other processes of the same user from reading the memory.
    let _ = prctl::set_dumpable(false);
    panic::set_hook(Box::new(|info| drop(writeln!(io::stderr(), "{}", told(info)))));
}

/// A panic in a line: where it was, and what the program itself says of it. The library's own messages repeat
/// the text that an index or an `expect` was about: that stays out.
fn told(info: &PanicHookInfo<'_>) -> String {
    let at = info.location().map(|at| format!(" at {}:{}:{}", at.file(), at.line(), at.column()));
    let payload = info.payload();
    let fixed = payload.downcast_ref::<&'static str>().copied();
    let made = payload.downcast_ref::<String>().map(|text| fixed_part(text));
    let said = fixed.or(made).unwrap_or("no message");
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    format!(
        "reveille: thread {thread} panicked{}: {said}; please report this",
        at.unwrap_or_default()
    )
}

/// What stands before anything that may have been filled in.
fn fixed_part(text: &str) -> &str {
    let end = text.find([':', '`', '"', '\'', '(', '{']).unwrap_or(text.len());
    text[..end].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_message_that_was_made_only_its_own_words_are_told() {
        for (text, told) in [
            ("called `Result::unwrap()` on an `Err` value: hush", "called"),
            ("it is there: \"hush\"", "it is there"),
            (
                "start byte index 1 is not a char boundary; it is inside 'ä' (bytes 0..2) of `ähush`",
                "start byte index 1 is not a char boundary; it is inside",
            ),
            ("index out of bounds: the len is 3 but the index is 5", "index out of bounds"),
            ("plain words", "plain words"),
        ] {
            assert_eq!(fixed_part(text), told);
        }
    }
}
