//! From an entry of `omni` and the secret that it names to an instance that machines join.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::link::Linker;
use super::within;
use crate::pure::catalog::omni::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG, Omni, Pasted, Token, pasted};
use crate::pure::config::fields::Located;
use crate::pure::config::schema::{self, SecretSource};
use crate::pure::config::surroundings::Secret;

impl Linker<'_> {
    pub(crate) fn omni(&mut self, name: &Located<String>, omni: schema::Omni) -> Option<Omni> {
        self.ca(omni.ca.as_ref());
        let (what, source, read) = match (omni.kernel_args, &omni.api, omni.join_token) {
            (Some(source), None, None) => {
                let read = self.secret(&source).and_then(from_pasted);
                ("join arguments", source, read)
            }
            (None, Some(api), Some(source)) => {
                let read = self.secret(&source).and_then(|secret| from_token(&api.value, secret));
                ("join token", source, read)
            }
            // That is an error, which has been told.
            (Some(_) | None, _, _) => return None,
        };
        let api = omni.api.map(|api| api.value);
        match read {
            Ok(read) => {
                let said = Pasted {
                    tunnel: omni.tunnel.unwrap_or(read.tunnel),
                    events: omni.events.or(read.events),
                    kernel_log: omni.kernel_log.or(read.kernel_log),
                    ..read
                };
                for doubt in said.doubts() {
                    self.problems.warning(&source.key, source.place, doubt.to_string());
                }
                Some(Omni::of(&name.value, said))
            }
            Err(reason) => {
                let message = format!(
                    "no {what}: {reason}; boots that join {} are refused until it is there",
                    name.value
                );
                let told = self.problems.fault(&source.key, source.place, message);
                told.spoils = vec![name.key.clone()];
                Some(Omni {
                    name: name.value.clone(),
                    api: api.unwrap_or_default(),
                    join_token: Err(format!("no {what} for omni {}: {reason}", name.value)),
                    tunnel: omni.tunnel.unwrap_or(false),
                    events: omni.events.unwrap_or_else(|| DEFAULT_EVENTS.to_owned()),
                    kernel_log: omni.kernel_log.unwrap_or_else(|| DEFAULT_KERNEL_LOG.to_owned()),
                })
            }
        }
    }

    /// The secret of this source, or why it is not there. That others can read it is told here.
    fn secret(&mut self, source: &Located<SecretSource>) -> Result<Secret, String> {
        let secret = match self.found.secrets.get(&source.value) {
            Some(read) => read.clone()?,
            None => return Err("it was not read".to_owned()),
        };
        if let Some(mode) = secret.open_to_all {
            let from = &secret.from;
            let message = format!(
                "{from} has mode {mode:04o}, so every user of this host can get at the join token: `chmod 600 {from}`"
            );
            self.problems.warning(&source.key, source.place, message);
        }
        Ok(secret)
    }

    pub(crate) fn ca(&mut self, ca: Option<&Located<String>>) {
        let Some(at) = ca else {
            return;
        };
        let path = within(&self.found.base, &at.value);
        if let Some(reason) = self.found.unreadable.get(&path) {
            self.problems.fault(&at.key, at.place, format!("{}: {reason}", path.display()));
        }
    }
}

fn from_pasted(secret: Secret) -> Result<Pasted, String> {
    let Secret { text, from, .. } = secret;
    pasted::parse(text.expose()).map_err(|mistakes| format!("{from}: {mistakes}"))
}

/// What `api` and a file with the token alone say: the sinks are Omni's defaults.
fn from_token(api: &str, secret: Secret) -> Result<Pasted, String> {
    let Secret { text, from, .. } = secret;
    let text = text.expose();
    let more = "holds more than a token: only what follows `jointoken=` belongs there";
    if text.contains("jointoken=") {
        return Err(format!("{from} {more}; name it in `kernel_args` if it is what Omni copies"));
    }
    if text.contains(char::is_whitespace) {
        return Err(format!("{from} {more}, in one line"));
    }
    Ok(Pasted {
        api: api.to_owned(),
        token: Token::parse(text).map_err(|error| format!("{from}: {error}"))?,
        tunnel: false,
        events: Some(DEFAULT_EVENTS.to_owned()),
        kernel_log: Some(DEFAULT_KERNEL_LOG.to_owned()),
        others: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pure::config::problem::{Problem, Problems};
    use crate::pure::config::resolve::resolve;
    use crate::pure::config::resolve::tests::secret;
    use crate::pure::config::schema::File;
    use crate::pure::config::snapshot::Config;
    use crate::pure::config::surroundings::Surroundings;

    const SINKS: &str = "talos.events.sink=[fdae:41e4:649b:9303::1]:8090 \
                         talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092";

    /// A host where every secret is this one.
    fn resolved(omni: &str, read: Result<Secret, String>) -> Result<Config, Vec<Problem>> {
        let yaml = format!(
            "omni:\n  lab: {omni}\nimages: {{ i: {{ kernel: /k, talos: {{ version: v1.14.0 }} }} }}\n\
             profiles: {{ p: {{ script: talos, image: i, omni: lab, release: armed }} }}\nserver: {{ nbps: [] }}\n"
        );
        let mut problems = Problems::new(Path::new("config.yaml"), "");
        let file = File::parse(&yaml, &mut problems).unwrap();
        let found = Surroundings {
            base: "/etc/reveille".into(),
            secrets: file.secret_sources().map(|s| (s.clone(), read.clone())).collect(),
            unreadable: [("/etc/reveille/gone.pem".into(), "there is no such file".into())].into(),
            ..Surroundings::default()
        };
        resolve(file, found, problems)
    }

    /// The join arguments of the profile, and what is wrong.
    fn joined(omni: &str, read: Result<Secret, String>) -> (String, Vec<String>) {
        let (line, problems) = match resolved(omni, read) {
            Ok(config) => {
                let profile = config.catalog.menu.profiles[0].clone();
                let arguments = profile.omni.as_ref().unwrap().arguments();
                (arguments.map_or_else(|reason| reason, |words| words.join(" ")), config.problems)
            }
            Err(problems) => ("-".to_owned(), problems),
        };
        let told: Vec<_> = problems
            .iter()
            .filter(|problem| problem.key != "server.nbps")
            .map(Problem::to_string)
            .collect();
        (line, told)
    }

    #[test]
    fn pasted_kernel_parameters_say_all_that_an_instance_needs() {
        let pasted = format!("siderolink.api=https://x:1?grpc_tunnel=true&jointoken=hush {SINKS}");
        let (line, told) = joined("{ kernel_args: { file: lab.args } }", secret(&pasted));
        assert_eq!((line.as_str(), told), (pasted.as_str(), vec![]));
    }

    #[test]
    fn what_the_config_says_itself_comes_before_what_was_pasted() {
        let pasted = "siderolink.api=https://x?grpc_tunnel=true&jointoken=hush quiet";
        let (line, told) = joined(
            "{ kernel_args: { env: ARGS }, tunnel: false, events: 'a:8092', kernel_log: 'tcp://b:1' }",
            secret(pasted),
        );
        assert_eq!(
            line,
            "siderolink.api=https://x?jointoken=hush talos.events.sink=a:8092 talos.logging.kernel=tcp://b:1"
        );
        let swapped = "config.yaml:2:30: omni.lab.kernel_args.env: the ports of `talos.events.sink` and `talos.logging.kernel` look swapped: Omni takes events on 8090 and kernel logs on 8092";
        let others = "config.yaml:2:30: omni.lab.kernel_args.env: what else stands there (1 of them) is not used; other arguments go into `cmdline`";
        assert_eq!(told, [swapped, others]);
    }

    #[test]
    fn what_cannot_be_used_refuses_the_boots_and_shows_no_token() {
        let until = "; boots that join lab are refused until it is there";
        let (args, token) =
            ("{ kernel_args: { file: x } }", "{ api: https://x, join_token: { file: x } }");
        for (omni, read, key, reason) in [
            (
                args,
                secret("siderolink.api=https://x?jointoken=v1:hushhush="),
                "config.yaml:2:31: omni.lab.kernel_args.file: no join arguments",
                "/etc/reveille/x: the join token starts with `v1:`, but no base64 follows: copy it whole",
            ),
            (
                args,
                Err("/etc/reveille/x: there is no such file".to_owned()),
                "config.yaml:2:31: omni.lab.kernel_args.file: no join arguments",
                "/etc/reveille/x: there is no such file",
            ),
            (
                token,
                secret("siderolink.api=https://x?jointoken=hush"),
                "config.yaml:2:46: omni.lab.join_token.file: no join token",
                "/etc/reveille/x holds more than a token: only what follows `jointoken=` belongs there; name it in `kernel_args` if it is what Omni copies",
            ),
            (
                token,
                secret("hush\nhush"),
                "config.yaml:2:46: omni.lab.join_token.file: no join token",
                "/etc/reveille/x holds more than a token: only what follows `jointoken=` belongs there, in one line",
            ),
        ] {
            let (refused, told) = joined(omni, read);
            assert_eq!(told, [format!("{key}: {reason}{until}")]);
            assert!(refused.ends_with(&format!(" for omni lab: {reason}")), "{refused}");
            assert!(!refused.contains("hush") && !told[0].contains("hush"), "{refused}");
        }
    }

    #[test]
    fn one_of_two_ways_to_join_is_taken() {
        for (omni, told) in [
            (
                "{ api: https://x, kernel_args: { file: x } }",
                "`kernel_args` says all that `api` and `join_token` say: keep it or these two",
            ),
            (
                "{ join_token: { file: x }, kernel_args: { file: x } }",
                "`kernel_args` says all that `api` and `join_token` say: keep it or these two",
            ),
            (
                "{ tunnel: true }",
                "it joins nothing: give `api` and `join_token`, or, for what Omni's \"Copy Kernel Parameters\" copies, `kernel_args: { file: … }`",
            ),
            (
                "{ api: https://x }",
                "`join_token` is missing: { file: … }, { env: … } or { credential: … }",
            ),
            ("{ join_token: { file: x } }", "`api` is missing: the address of Omni's machine API"),
        ] {
            let (_, complaints) = joined(omni, secret("hush"));
            assert!(
                complaints.contains(&format!("config.yaml:2:3: omni.lab: {told}")),
                "{complaints:?}"
            );
        }
    }

    #[test]
    fn a_secret_that_everybody_can_read_and_a_ca_that_is_not_there_are_told() {
        let read = Secret { open_to_all: Some(0o644), ..secret("hush").unwrap() };
        let omni = "{ api: https://x, join_token: { file: x }, ca: gone.pem }";
        let (line, told) = joined(omni, Ok(read));
        assert!(line.starts_with("siderolink.api=https://x?jointoken=hush "), "{line}");
        assert_eq!(
            told,
            [
                "config.yaml:2:46: omni.lab.join_token.file: /etc/reveille/x has mode 0644, so every user of this host can get at the join token: `chmod 600 /etc/reveille/x`",
                "config.yaml:2:55: omni.lab.ca: /etc/reveille/gone.pem: there is no such file",
            ]
        );
    }
}
