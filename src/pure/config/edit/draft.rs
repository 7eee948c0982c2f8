//! The new text, as it is probably right: where the lines of an entry go, and how deep they stand.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{Entry, MACHINES, Obstacle, spell};
use crate::pure::config::yaml::{Key, Node, Value};

/// The config's text in lines, each with its end, and what its root says.
pub(super) struct Page<'a> {
    lines: Vec<&'a str>,
    root: &'a [(Key, Node)],
}

impl<'a> Page<'a> {
    pub(super) fn new(text: &'a str, root: &'a [(Key, Node)]) -> Self {
        Self { lines: text.split_inclusive('\n').collect(), root }
    }

    /// The text with a `machines` of its own at its end, in the ways that it may be right.
    pub(super) fn appended(&self, entry: &Entry) -> Vec<String> {
        let Self { lines, root } = self;
        let margin = root.first().map_or(0, |(key, _)| indentation_of(key));
        let last = root.iter().map(|(key, _)| line_of(key)).max();
        let end = document_end(lines, last.map_or(0, |last| last + 1));
        let step = self.usual_step();
        let mut block = vec![format!("{}{MACHINES}:", " ".repeat(margin))];
        block.extend(written(entry, margin + step, step));
        if lines[..end].last().is_none_or(|line| is_blank(line)) {
            return vec![with_block(lines, end, &block)];
        }
        // To a text that begins with `|+` the blank line would belong.
        let apart: Vec<String> = std::iter::once(String::new()).chain(block.clone()).collect();
        vec![with_block(lines, end, &apart), with_block(lines, end, &block)]
    }

    /// The text with the entry behind the last machine, in the ways that it may be right.
    pub(super) fn extended(
        &self,
        key: &Key,
        machines: &[(Key, Node)],
        entry: &Entry,
    ) -> Result<Vec<String>, Obstacle> {
        let section = Section::of(self, key).ok_or(Obstacle::Unclear)?;
        let mut lines = self.lines.clone();
        let opened = section.opening.without_value();
        section.refuse_what_is_no_block(&lines, key)?;
        let block = match section.first {
            Some(first) if !machines.is_empty() => {
                self.next_block(machines, (section.margin, first), entry)
            }
            Some(_) | None => {
                if section.opening.says_nothing() {
                    lines[section.head] = &opened;
                }
                let step = self.usual_step();
                written(entry, section.margin + step, step)
            }
        };
        let behind = section.behind(&lines);
        // The same of those behind the last machine.
        let blanks = lines[behind..section.end].iter().take_while(|line| is_blank(line)).count();
        Ok(vec![with_block(&lines, behind, &block), with_block(&lines, behind + blanks, &block)])
    }

    /// The entry's lines, as the machines before it are written, the first of them at the line `first`.
    fn next_block(
        &self,
        machines: &[(Key, Node)],
        (margin, first): (usize, usize),
        entry: &Entry,
    ) -> Vec<String> {
        let column = indentation(self.lines[first]);
        let step = machines.iter().rev().find_map(|(key, node)| self.step(key, node));
        let block = written(entry, column, step.unwrap_or(column.saturating_sub(margin)));
        let blank = self.are_apart(machines, first).then(String::new);
        blank.into_iter().chain(block).collect()
    }

    /// Whether machines are kept apart by blank lines: the last one from the one before it.
    fn are_apart(&self, machines: &[(Key, Node)], first: usize) -> bool {
        let own = machines.iter().map(|(key, _)| key).filter(|key| self.begins_its_line(key));
        let last = own.map(line_of).max().filter(|last| *last > first);
        let between = last.map_or(&[][..], |last| &self.lines[first..last]);
        between.iter().rev().find(|line| !is_comment(line)).is_some_and(|line| is_blank(line))
    }

    /// How much deeper the fields of a mapping stand than its own key, where it is a block.
    fn step(&self, key: &Key, node: &Node) -> Option<usize> {
        let Value::Map(fields) = &node.value else {
            return None;
        };
        // What a merge brings in stands at the alias.
        let is_own =
            |field: &&Key| field.place.line > key.place.line && self.begins_its_line(field);
        let field = fields.iter().map(|(field, _)| field).find(is_own)?;
        indentation_of(field).checked_sub(indentation_of(key)).filter(|step| *step > 0)
    }

    /// How deep this file's first block is indented.
    fn usual_step(&self) -> usize {
        self.root.iter().find_map(|(key, node)| self.step(key, node)).unwrap_or(2)
    }

    fn begins_its_line(&self, key: &Key) -> bool {
        let line = self.lines.get(line_of(key));
        line.is_some_and(|line| indentation(line) == indentation_of(key))
    }
}

/// Where `machines` stands.
struct Section<'a> {
    /// The line of its key.
    head: usize,
    /// How deep that is indented.
    margin: usize,
    opening: Opening<'a>,
    /// The first line below it that is neither blank nor a comment, where it has one.
    first: Option<usize>,
    /// The line of the next key, or the document's end.
    end: usize,
}

impl<'a> Section<'a> {
    fn of(page: &Page<'a>, key: &Key) -> Option<Self> {
        let Page { lines, root } = page;
        let (head, margin) = (line_of(key), indentation_of(key));
        let opening = Opening::of(lines.get(head)?, margin)?;
        let is_next = |at: &usize| {
            *at > head && lines.get(*at).is_some_and(|line| indentation(line) == margin)
        };
        let next = root.iter().map(|(key, _)| line_of(key)).filter(is_next).min();
        let end = next.unwrap_or_else(|| document_end(lines, head + 1));
        let first = (head + 1..end).find(|at| !is_blank(lines[*at]) && !is_comment(lines[*at]));
        Some(Self { head, margin, opening, first, end })
    }

    fn refuse_what_is_no_block(&self, lines: &[&str], key: &Key) -> Result<(), Obstacle> {
        let below = self.first.map_or("", |first| lines[first].trim_start());
        let value = if self.opening.value.is_empty() { below } else { self.opening.value };
        match value.chars().next() {
            Some('*') => Err(Obstacle::Alias(key.place.line)),
            Some('{') if self.opening.value.is_empty() || !self.opening.says_nothing() => {
                Err(Obstacle::Braces(key.place.line))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The line behind its last one. What is indented no deeper than its key belongs to what comes next.
    fn behind(&self, lines: &[&str]) -> usize {
        let is_of_next =
            |line: &&str| is_blank(line) || is_comment(line) && indentation(line) <= self.margin;
        let below = &lines[self.head + 1..self.end];
        self.end - below.iter().rev().take_while(|line| is_of_next(line)).count()
    }
}

/// The line that `machines:` is on, in its parts.
struct Opening<'a> {
    /// To the colon.
    key: &'a str,
    /// What stands behind it.
    value: &'a str,
    /// The rest: a comment, the line's end.
    rest: &'a str,
}

impl<'a> Opening<'a> {
    fn of(line: &'a str, margin: usize) -> Option<Self> {
        let own = line.get(margin..)?;
        let behind = ["machines", "\"machines\"", "'machines'"]
            .into_iter()
            .find_map(|key| own.strip_prefix(key)?.trim_start().strip_prefix(':'))?;
        let key = &line[..line.len() - behind.len()];
        let comment = [" #", "\t#"].into_iter().filter_map(|begin| behind.find(begin)).min();
        let comment = comment.unwrap_or(behind.len());
        let value = behind[..comment].trim();
        let before = behind.len() - behind.trim_start().len();
        let rest = if value.is_empty() { behind } else { &behind[before + value.len()..] };
        (indentation(line) == margin).then_some(Self { key, value, rest })
    }

    fn says_nothing(&self) -> bool {
        let inner = self.value.strip_prefix('{').and_then(|value| value.strip_suffix('}'));
        matches!(self.value, "" | "~" | "null" | "Null" | "NULL") || inner.is_some_and(is_blank)
    }

    fn without_value(&self) -> String {
        format!("{}{}", self.key, self.rest)
    }
}

/// The line that ends the document, or the end of the text. No value in a mapping has one like it.
fn document_end(lines: &[&str], from: usize) -> usize {
    let ends = |line: &&str| {
        let rest = line.strip_prefix("...");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    let rest = lines.get(from..).unwrap_or_default();
    rest.iter().position(ends).map_or(lines.len(), |at| from + at)
}

fn line_of(key: &Key) -> usize {
    key.place.line.saturating_sub(1) as usize
}

fn indentation_of(key: &Key) -> usize {
    key.place.column.saturating_sub(1) as usize
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The text with these lines before the line `at`, ended as the ones before them are.
fn with_block(lines: &[&str], at: usize, block: &[String]) -> String {
    let ended = lines[..at].iter().rev().find(|line| line.ends_with('\n'));
    let end = if ended.is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" };
    let mut text = lines[..at].concat();
    if !text.is_empty() && !text.ends_with('\n') {
        text += end;
    }
    for line in block {
        text += line;
        text += end;
    }
    text + &lines[at..].concat()
}

/// The entry's lines, its name at this column, its fields so much deeper.
pub(super) fn written(entry: &Entry, column: usize, step: usize) -> Vec<String> {
    let (margin, deeper) = (" ".repeat(column), " ".repeat(column + step));
    let comment = entry.comment.as_deref().map(spell::comment).filter(|text| !text.is_empty());
    let mut lines = vec![format!("{margin}{}:", spell::scalar(&entry.name))];
    lines.extend(comment.map(|text| format!("{deeper}# {text}")));
    let field = |(key, value): &(_, String)| format!("{deeper}{key}: {}", spell::scalar(value));
    lines.extend(entry.fields().iter().map(field));
    lines
}
