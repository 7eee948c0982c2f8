//! A machine's own script, made for one request: over HTTP, and over TFTP for an iPXE that has no HTTP.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::boot::client::Facts;
use crate::boot::decide::Script;
use crate::boot::event::Sent;
use crate::boot::script::{self, Scene};
use crate::boot::{Client, Mac, Stage, Step, decide_script, links};
use crate::config::Config;

/// What a script does with its machine.
#[derive(Clone, Debug)]
pub enum Does {
    /// It boots something, in words.
    Boot(String, Box<Client>),
    /// It says on the console why it does not.
    Refuse(String),
}

impl Does {
    /// The step that it is to have fetched the script.
    pub fn step(self, sent: Sent) -> Step {
        match self {
            Self::Boot(does, client) => Step::ScriptServed { does, client, sent },
            Self::Refuse(reason) => Step::Refused { what: "its boot".to_owned(), reason },
        }
    }
}

/// The script's text, and what it does.
pub fn render(
    config: &Config,
    script: &Script,
    (mac, client): (Mac, &Client),
    base: &str,
) -> (String, Does) {
    let scene = Scene { client, mac, base };
    match script::render(&config.templates, script, &config.catalog, scene) {
        Ok(rendered) => (rendered.text, Does::Boot(rendered.does, Box::new(client.clone()))),
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
    config: &Config,
    name: &str,
    (mac, client): (Mac, &Client),
    base: &str,
) -> Result<String, String> {
    // What is not known by now is not asked for any more.
    let facts = client.facts.clone().unwrap_or_default();
    let client = Client { facts: Some(facts), ..client.clone() };
    let script = decide_script(&client, &config.catalog, &config.templates);
    let script = script.map_err(|reason| reason.to_string())?;
    let scene = Scene { client: &client, mac, base };
    script::render_file(&config.templates, (&script, name), scene).map_err(|why| why.to_string())
}

/// The script that is served over TFTP: what it names comes over TFTP too. There iPXE sends nothing that
/// stands behind a `?`, so it can tell no SMBIOS facts, and what is chosen from a menu does not arrive.
///
/// # Errors
/// It gets none, and why.
pub fn render_for_tftp(
    config: &Config,
    mac: Mac,
    at: SocketAddrV4,
    from: Ipv4Addr,
) -> Result<(String, Does), String> {
    let client = Client {
        mac: Some(mac),
        speaks_http: false,
        address: Some(from),
        facts: Some(Facts::default()),
        ..Client::at(Stage::Ipxe)
    };
    let script = decide_script(&client, &config.catalog, &config.templates);
    let script = script.map_err(|reason| reason.to_string())?;
    Ok(render(config, &script, (mac, &client), &links::tftp_base(at)))
}
