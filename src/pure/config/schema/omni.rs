//! `omni`: the instances that machines join, and where their secrets are read from.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::pure::catalog::ipxe_word::Flaw;
use crate::pure::config::fields::{Fields, Keys, Located};
use crate::pure::config::problem::Problems;
use crate::pure::config::yaml::{Node, Value};

const OMNI: Keys = Keys {
    known: &["api", "join_token", "kernel_args", "tunnel", "events", "kernel_log", "ca"],
    also: &[],
};
const SECRET: Keys = Keys { known: &["file", "env", "credential"], also: &[] };

/// One instance under `omni`.
#[derive(Debug, Default)]
pub struct Omni {
    /// `api`
    pub api: Option<Located<String>>,
    /// `join_token`
    pub join_token: Option<Located<SecretSource>>,
    /// `kernel_args`, which says what the two say, as Omni hands it out
    pub kernel_args: Option<Located<SecretSource>>,
    /// `tunnel`
    pub tunnel: Option<bool>,
    /// `events`
    pub events: Option<String>,
    /// `kernel_log`
    pub kernel_log: Option<String>,
    /// `ca`
    pub ca: Option<Located<String>>,
}

/// Where a secret is read from; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretSource {
    /// A file with nothing else in it; the path starts at the config file.
    File(String),
    /// An environment variable.
    Env(String),
    /// A systemd credential.
    Credential(String),
}

impl Omni {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, OMNI, problems);
        let api = fields.text("api", problems);
        if let Some(api) = &api {
            let schemes = ["https://", "http://", "grpc://"];
            if !schemes.iter().any(|scheme| api.value.starts_with(scheme)) {
                let message = format!(
                    "`{}` is not the address of a machine API; write it like https://example.omni.siderolabs.io",
                    api.value
                );
                problems.error(&api.key, api.place, message);
            } else if api.value.contains('?') {
                let message = "the address ends before its `?`: the token comes from `join_token`";
                problems.error(&api.key, api.place, message);
            } else if let Some(flaw) = Flaw::of(&api.value) {
                problems.error(&api.key, api.place, format!("the address {flaw}"));
            }
        }
        let mut secret = |field| {
            let node = fields.node(field)?;
            SecretSource::read(node, &fields.path(field), problems)
        };
        let (join_token, kernel_args) = (secret("join_token"), secret("kernel_args"));
        ways(&fields, node, problems);
        Self {
            api,
            join_token,
            kernel_args,
            tunnel: fields.flag("tunnel", problems),
            events: argument(&fields, "events", problems),
            kernel_log: argument(&fields, "kernel_log", problems),
            ca: fields.text("ca", problems),
        }
    }

    /// Every secret that it names.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        self.join_token.iter().chain(&self.kernel_args).map(|at| &at.value)
    }
}

/// There are two ways to say whom to join and with what: one of them is taken.
fn ways(fields: &Fields<'_>, node: &Node, problems: &mut Problems) {
    // A misspelt one was meant, and is told by its name.
    let ways = ["api", "join_token", "kernel_args"];
    if ways.iter().all(|field| fields.node(field).is_none() && !fields.lacks(field)) {
        return;
    }
    let [api, join_token, kernel_args] = ways.map(|field| !fields.lacks(field));
    let message = match (api, join_token, kernel_args) {
        (true, true, false) | (false, false, true) => return,
        (true, _, true) | (_, true, true) => {
            "`kernel_args` says all that `api` and `join_token` say: keep it or these two"
        }
        (true, false, false) => {
            "`join_token` is missing: { file: … }, { env: … } or { credential: … }"
        }
        (false, true, false) => "`api` is missing: the address of Omni's machine API",
        (false, false, false) => {
            "it joins nothing: give `api` and `join_token`, or, for what Omni's \"Copy Kernel Parameters\" copies, `kernel_args: { file: … }`"
        }
    };
    problems.error(&fields.key, node.place, message);
}

/// A field that goes onto the kernel line as part of one argument.
fn argument(fields: &Fields<'_>, field: &str, problems: &mut Problems) -> Option<String> {
    let text = fields.text(field, problems)?;
    if let Some(flaw) = Flaw::of(&text.value) {
        problems.error(&text.key, text.place, format!("`{}` {flaw}", text.value));
    }
    Some(text.value)
}

impl SecretSource {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Option<Located<Self>> {
        if let Value::Scalar(_) | Value::List(_) = node.value {
            // The text may be the secret itself: it is not repeated.
            let message = "a secret does not stand in the config; write { file: ./secrets/x }, { env: NAME } or { credential: NAME }";
            problems.error(key, node.place, message);
            return None;
        }
        let fields = Fields::of(node, key, SECRET, problems);
        let mut sources = [
            fields.text("file", problems).map(|at| at.map(Self::File)),
            fields.text("env", problems).map(|at| at.map(Self::Env)),
            fields.text("credential", problems).map(|at| at.map(Self::Credential)),
        ]
        .into_iter()
        .flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => Some(source),
            (None, _) if !["file", "env", "credential"].iter().all(|name| fields.lacks(name)) => {
                None
            }
            (None, _) | (Some(_), Some(_)) => {
                problems.error(key, node.place, "name one source: `file`, `env` or `credential`");
                None
            }
        }
    }
}
