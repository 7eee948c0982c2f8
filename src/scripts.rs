//! A machine's own script, made for one request: over HTTP, and over TFTP for an iPXE that has no HTTP.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::boot::advice::Advice;
use crate::boot::client::Facts;
use crate::boot::decide::{Ignored, Script};
use crate::boot::event::{Sent, Starts};
use crate::boot::script::{self, Rendered, Scene};
use crate::boot::state::orders::Orders;
use crate::boot::{Client, Mac, Stage, Step, decide_script, links};
use crate::config::Snapshot;

/// What a script does with its machine.
#[derive(Clone, Debug)]
pub enum Does {
    /// It boots something.
    Boot {
        /// What.
        starts: Starts,
        /// The same in words.
        does: String,
        /// Whom.
        client: Box<Client>,
        /// What is worth knowing of that.
        advice: Vec<Advice>,
    },
    /// It waits for this image.
    Wait(String, Box<Client>),
    /// It says on the console why it does not.
    Refuse(String),
}

impl Does {
    /// The step that it is to have fetched the script.
    pub fn step(self, sent: Sent) -> Step {
        match self {
            Self::Boot { starts, does, client, advice: _ } => {
                Step::ScriptServed { starts, does, client, sent }
            }
            Self::Wait(image, client) => Step::WaitServed { image, client, sent },
            Self::Refuse(reason) => Step::Refused { what: "its boot".to_owned(), reason },
        }
    }

    /// The same, and then what is worth knowing of the machine: over TFTP none tells anything of itself.
    pub fn steps(mut self, sent: Sent) -> Vec<Step> {
        let advice = match &mut self {
            Self::Boot { advice, .. } => std::mem::take(advice),
            Self::Wait(..) | Self::Refuse(_) => Vec::new(),
        };
        let advised = advice.into_iter().map(|advice| Step::Advised { advice });
        [self.step(sent)].into_iter().chain(advised).collect()
    }
}

/// The script's text, and what it does. It names what is fetched over `base`, and answer files over HTTP.
pub fn render(
    Snapshot { config, shelf }: Snapshot<'_>,
    script: &Script,
    (mac, client): (Mac, &Client),
    (base, http): (&str, &str),
) -> (String, Does) {
    let scene = Scene { client, mac, base, http, shelf };
    match script::render(&config.templates, script, &config.catalog, scene) {
        Ok(Rendered { text, does, advice }) => {
            let client = Box::new(client.clone());
            let does = match script.awaits() {
                Some(image) => Does::Wait(image.to_owned(), client),
                None => Does::Boot { starts: script.starts(), does, client, advice },
            };
            (text, does)
        }
        Err(refusal) => {
            let reason = refusal.to_string();
            let text = script::render_refusal(&config.templates, scene, &refusal);
            (text, Does::Refuse(reason))
        }
    }
}

/// One of a machine's answer files.
///
/// # Errors
/// Why it gets none, and what would mend that.
pub fn render_file(
    (Snapshot { config, shelf }, orders): (Snapshot<'_>, &Orders),
    name: &str,
    (mac, client): (Mac, &Client),
    base: &str,
) -> Result<String, String> {
    // What is not known by now is not asked for any more.
    let facts = client.facts.clone().unwrap_or_default();
    let client = Client { facts: Some(facts), ..client.clone() };
    let script = decide_script(&client, &config.catalog, &config.templates, (shelf, orders));
    let script = script.map_err(|reason| reason.to_string())?;
    let scene = Scene { client: &client, mac, base, http: base, shelf };
    script::render_file(&config.templates, (&script, name), scene).map_err(|why| why.to_string())
}

/// The script that is served over TFTP: what it names comes over TFTP too. There iPXE sends nothing that
/// stands behind a `?`, so it can tell no SMBIOS facts, and what is chosen from a menu does not arrive.
///
/// # Errors
/// It gets none, and why.
pub fn render_for_tftp(
    (now, orders): (Snapshot<'_>, &Orders),
    mac: Mac,
    at: SocketAddrV4,
    from: Ipv4Addr,
) -> Result<(String, Does), Ignored> {
    let Snapshot { config, shelf } = now;
    let client = Client {
        mac: Some(mac),
        speaks_http: false,
        address: Some(from),
        facts: Some(Facts::default()),
        ..Client::at(Stage::Ipxe)
    };
    let script = decide_script(&client, &config.catalog, &config.templates, (shelf, orders));
    let script = script?;
    let http = links::base(*at.ip(), config.server.http_port);
    Ok(render(now, &script, (mac, &client), (&links::tftp_base(at), &http)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::boot::Shelf;
    use crate::config::Config;
    use crate::config::load::Source;

    /// The example's config, where its profile `k3s` has each of the answer files that come along.
    fn example() -> Config {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(root.join("config.example.yaml")).unwrap();
        let names = ["preseed.cfg", "ks.cfg", "config.ign", "user-data", "meta-data"];
        let all =
            names.map(|name| format!("{name}: {}", root.join("answers").join(name).display()));
        let text = text.replace("preseed.cfg: ./answers/preseed.cfg", &all.join(", "));
        let text =
            text.replace("disk: /dev/sda }", "disk: /dev/sda, repo: 'http://mirror.example/os/' }");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, text).unwrap();
        Source::File(file).load().unwrap()
    }

    fn answer(config: &Config, name: &str) -> Result<String, String> {
        let mac = Mac::new([0x9c, 0x8e, 0x99, 0, 0, 7]);
        let facts = Facts { serial: Some("CZ1".into()), ..Facts::default() };
        let arch = Some(crate::boot::Arch::UefiX64);
        let client = Client { mac: Some(mac), facts: Some(facts), arch, ..Client::at(Stage::Ipxe) };
        let now = Snapshot { config, shelf: &Shelf::default() };
        render_file((now, &Orders::default()), name, (mac, &client), "http://192.168.1.2:8080")
    }

    #[test]
    fn the_answer_files_that_come_along_are_filled_in_from_the_example() {
        let config = example();
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample you@home";
        let preseed = answer(&config, "preseed.cfg").unwrap();
        assert!(preseed.contains("d-i partman-auto/disk string /dev/sda\n"), "{preseed}");
        assert!(preseed.contains(&format!("echo '{key}' > ")), "{preseed}");
        let continued = |line: &str| line.ends_with('\\') || line.starts_with("  ");
        let is_setting = |line: &str| line.split_whitespace().count() >= 3;
        for line in preseed.lines().filter(|line| !line.is_empty() && !continued(line)) {
            assert!(is_setting(line), "{line}");
        }
        let ks = answer(&config, "ks.cfg").unwrap();
        assert!(ks.starts_with("text\nreboot\nurl --url=http://mirror.example/os/\n"), "{ks}");
        assert_eq!(ks.matches("\n%end\n").count(), 2, "{ks}");

        let ign = answer(&config, "config.ign").unwrap();
        let ign: serde_json::Value = serde_json::from_str(&ign).unwrap();
        assert_eq!(ign["passwd"]["users"][0]["sshAuthorizedKeys"][0], key);
        assert_eq!(ign["storage"]["files"][0]["contents"]["source"], "data:,9c-8e-99-00-00-07");

        let user_data = answer(&config, "user-data").unwrap();
        assert!(user_data.starts_with("#cloud-config\n"), "{user_data}");
        let user_data: serde_json::Value = serde_saphyr::from_str(&user_data).unwrap();
        let auto = &user_data["autoinstall"];
        assert_eq!(auto["identity"]["hostname"], "9c-8e-99-00-00-07");
        assert_eq!(auto["ssh"]["authorized-keys"][0], key);
        let meta_data = answer(&config, "meta-data").unwrap();
        let meta_data: serde_json::Value = serde_saphyr::from_str(&meta_data).unwrap();
        assert_eq!(meta_data["instance-id"], "9c-8e-99-00-00-07");
    }

    #[test]
    fn an_answer_file_that_needs_what_the_config_does_not_say_is_refused_with_its_line() {
        let mut config = example();
        let group = config.catalog.groups.pop().unwrap();
        let mut group = std::sync::Arc::into_inner(group).unwrap();
        let profile = std::sync::Arc::clone(&group.profile);
        let settings = crate::boot::settings::Settings {
            vars: std::collections::BTreeMap::new(),
            ..profile.settings.clone()
        };
        let bare = crate::boot::catalog::Profile {
            name: "bare".into(),
            script: "debian".into(),
            image: None,
            omni: None,
            settings,
        };
        group.profile = std::sync::Arc::new(bare);
        config.catalog.groups.push(std::sync::Arc::new(group));
        for name in ["preseed.cfg", "ks.cfg", "config.ign", "user-data"] {
            let refused = answer(&config, name).unwrap_err();
            assert!(refused.contains(&format!("answers/{name}:")), "{refused}");
            assert!(refused.contains("not known"), "{refused}");
        }
    }
}
