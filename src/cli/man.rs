//! `reveille man`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use super::output::print;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write a page for each command into this folder, as reveille-nbps-fetch.1, instead of printing the main one
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Prints the main page, or writes all of them and prints their paths.
pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Some(folder) = &arguments.output else {
        return print(&page(&Man::new(command()))?);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut written = String::new();
    for man in pages() {
        let path = folder.join(man.get_filename());
        write(&path, &page(&man)?)?;
        written += &format!("{}\n", path.display());
    }
    print(&written)
}

/// All that there is but `help`, which needs no page.
fn command() -> Command {
    Cli::command().disable_help_subcommand(true)
}

/// A page for each command, with those below it.
fn pages() -> Vec<Man> {
    let mut command = command();
    // It is this that gives the commands below their whole names.
    command.build();
    let mut commands = vec![command];
    let mut at = 0;
    while let Some(command) = commands.get(at) {
        let below: Vec<_> =
            command.get_subcommands().filter(|below| !below.is_hide_set()).cloned().collect();
        commands.extend(below);
        at += 1;
    }
    commands.into_iter().map(Man::new).collect()
}

fn page(man: &Man) -> Result<String> {
    let mut page = Vec::new();
    man.render(&mut page).context("cannot render a manual page")?;
    Ok(String::from_utf8(page)?)
}

fn write(path: &Path, page: &str) -> Result<()> {
    fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_of_its_own_and_the_main_one_names_it() {
        let names: Vec<String> = pages().iter().map(Man::get_filename).collect();
        assert_eq!(names[0], "reveille.1");
        assert!(names.contains(&"reveille-nbps-fetch.1".to_owned()), "{names:?}");
        let main = page(&pages()[0]).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = format!("reveille-{}.1", command.get_name());
            assert!(names.contains(&name), "{name} is not among {names:?}");
            let named = format!("reveille\\-{}(1)", command.get_name());
            assert!(main.contains(&named), "{named} is not in\n{main}");
        }
    }
}
