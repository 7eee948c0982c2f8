//! What an operator must agree to before an order is given, and how.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use anyhow::{Context, Result, bail};

use super::output::{columns, prompt, tell};
use crate::admin::operations::machines::{Plan, Planned};
use crate::pure::client::Mac;

/// What there is to ask.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    /// Nothing.
    None,
    /// A yes.
    Yes(String),
    /// A text, to be typed.
    Typed { question: String, text: String },
    /// It cannot be asked, and must be agreed to by --yes.
    Flag(String),
}

/// Who gives an order, and how its machines are named.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Whether somebody can be asked.
    pub(super) has_terminal: bool,
    /// Whether one machine is named, and no pattern or group.
    pub(super) is_one_by_name: bool,
    /// What the command does, as `order`: a regular verb.
    pub(super) verb: &'static str,
}

impl Asked {
    /// Whether there is nothing to ask, whatever the order does: scripts name one machine.
    pub(super) fn is_agreed(self) -> bool {
        self.is_one_by_name && !self.has_terminal
    }

    fn question(self, machines: &[Planned]) -> Question {
        let erased = machines.iter().filter(|planned| planned.erases).count();
        let count = machines.len();
        match machines {
            _ if self.is_agreed() => Question::None,
            [] | [_] if erased == 0 => Question::None,
            _ if !self.has_terminal => Question::Flag(match erased {
                0 => format!("this order is for {count} machines: --yes gives it"),
                1 if count == 1 => {
                    "this order has a machine boot a profile that erases a disk: --yes gives it"
                        .to_owned()
                }
                _ => format!(
                    "this order is for {count} machines, and {erased} of them boot a profile that erases a disk: --yes gives it"
                ),
            }),
            [one] => Question::Typed {
                question: format!(
                    "{} boots {}. Type its name to {} that",
                    one.machine, one.next, self.verb
                ),
                text: one.machine.clone(),
            },
            _ if erased == 0 => Question::Yes(format!("Order that for {count} machines?")),
            _ => Question::Typed {
                question: format!(
                    "{erased} of these {count} machines boot a profile that erases a disk. Type {count}, the number of machines listed, to order that"
                ),
                text: count.to_string(),
            },
        }
    }

    /// Lists what an order does, if it is for several machines, and asks whether it is meant.
    ///
    /// # Errors
    /// It is not, or nobody can be asked.
    pub(super) fn ask(self, Plan { machines, left_out, id: _ }: &Plan) -> Result<()> {
        let question = self.question(machines);
        let nothing = format!("nothing was {}ed", self.verb);
        let is_of_several = machines.len() > 1 || !left_out.is_empty();
        if is_of_several && question != Question::None {
            tell(listed(machines, left_out).trim_end());
        }
        match question {
            Question::None => Ok(()),
            Question::Flag(why) => bail!("{nothing}: {why}"),
            Question::Yes(question) => {
                let answer = answer(&format!("{question} [y/N]"), &nothing)?;
                if !["y", "yes"].contains(&answer.to_ascii_lowercase().as_str()) {
                    bail!("{nothing}");
                }
                Ok(())
            }
            Question::Typed { question, text } => {
                let answer = answer(&question, &nothing)?;
                if !is_same(&answer, &text) {
                    bail!("{nothing}: that is not {text}");
                }
                Ok(())
            }
        }
    }
}

/// Whether somebody can be asked.
pub(super) fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What each of several machines boots next, and which are left out, a line each.
pub(super) fn listed(machines: &[Planned], left_out: &[String]) -> String {
    let mut text = String::new();
    let rows: Vec<_> = machines
        .iter()
        .map(|planned| [planned.machine.clone(), planned.next.to_string()])
        .collect();
    let head = ["MACHINE", "BOOTS NEXT"].map(str::to_owned);
    for line in columns(&[&[head][..], &rows].concat()) {
        let _ = write!(text, "{line}");
    }
    if !left_out.is_empty() {
        let _ = writeln!(text, "left out:\n  {}", left_out.join("\n  "));
    }
    text
}

/// A MAC may be typed in any spelling.
fn is_same(answer: &str, text: &str) -> bool {
    let macs = answer.parse::<Mac>().ok().zip(text.parse::<Mac>().ok());
    answer == text || macs.is_some_and(|(answer, text)| answer == text)
}

fn answer(question: &str, nothing: &str) -> Result<String> {
    prompt(question);
    let mut line = String::new();
    if io::stdin().read_line(&mut line).context("cannot read the terminal")? == 0 {
        tell("");
        bail!("{nothing}");
    }
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::machine_view::{Next, What};
    use crate::pure::machine::orders::Because;

    fn planned(machine: &str, wipes: bool) -> Planned {
        let next = Next {
            boots: What::Profile,
            profile: Some("talos".into()),
            because: Some(Because::Armed),
            wipes,
            is_withheld: false,
            unconfirmed: None,
        };
        Planned { machine: machine.to_owned(), next, erases: wipes }
    }

    #[test]
    fn an_order_asks_for_as_much_as_it_can_destroy() {
        let [oden, kept] = [true, false].map(|wipes| [planned("oden", wipes)]);
        let both = [planned("oden", true), planned("balder", false)];
        let harmless = [planned("oden", false), planned("balder", false)];
        let typed = |question: &str, text: &str| Question::Typed {
            question: question.to_owned(),
            text: text.to_owned(),
        };
        let flag = |why: &str| Question::Flag(format!("this order {why}: --yes gives it"));
        for (has_terminal, is_one_by_name, machines, question) in [
            // A script that names one machine.
            (false, true, &oden[..], Question::None),
            (false, false, &kept, Question::None),
            (false, false, &oden, flag("has a machine boot a profile that erases a disk")),
            (false, false, &harmless, flag("is for 2 machines")),
            (
                false,
                false,
                &both,
                flag("is for 2 machines, and 1 of them boot a profile that erases a disk"),
            ),
            (true, true, &kept, Question::None),
            (
                true,
                true,
                &oden,
                typed(
                    "oden boots profile talos: it is armed; it erases a disk. Type its name to order that",
                    "oden",
                ),
            ),
            (true, false, &kept, Question::None),
            (true, false, &harmless, Question::Yes("Order that for 2 machines?".into())),
            (
                true,
                false,
                &both,
                typed(
                    "1 of these 2 machines boot a profile that erases a disk. Type 2, the number of machines listed, to order that",
                    "2",
                ),
            ),
        ] {
            let asked = Asked { has_terminal, is_one_by_name, verb: "order" };
            assert_eq!(asked.question(machines), question);
        }
    }

    #[test]
    fn a_machine_without_a_name_is_agreed_to_by_its_mac_in_any_spelling() {
        assert!(is_same("52-54-00-77-00-01", "52:54:00:77:00:01"));
        assert!(!is_same("52-54-00-77-00-02", "52:54:00:77:00:01"));
        assert!(is_same("oden", "oden") && !is_same("Oden", "oden") && !is_same("", "oden"));
    }
}
