//! A machine's own script, made for one request: over HTTP, and over TFTP for an iPXE that has no HTTP.

use std::net::SocketAddrV4;

use crate::pure::boot::admission::{self, Handling, Withheld};
use crate::pure::boot::decide::{Ignored, Script, decide_script};
use crate::pure::boot::plan::select;
use crate::pure::boot::urls;
use crate::pure::catalog::omni;
use crate::pure::catalog::release::release;
use crate::pure::catalog::settings::Release;
use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Client, Facts, Mac, Stage};
use crate::pure::config::snapshot::{Config, Snapshot};
use crate::pure::event::advice::Advice;
use crate::pure::event::boot::{Event, Sent, Starts, Step, Subject};
use crate::pure::event::doubt::Doubt;
use crate::pure::machine::attempt::OpenBoot;
use crate::pure::machine::evidence::Neighbour;
use crate::pure::machine::orders::Orders;
use crate::pure::machine::state::MachineState;
use crate::pure::script::render::{Rendered, Scene};
use crate::state::registry::{BootRequest, Registry};

/// A request for a machine's script.
#[derive(Clone, Copy, Debug)]
pub struct ScriptRequest<'a> {
    /// The boot that it could belong to.
    pub boot: BootRequest<'a>,
    /// Who asks, as far as the request says.
    pub client: &'a Client,
    /// What iPXE reports.
    pub report: Option<Report>,
    /// Whether an iPXE asks: whoever else fetches a script wants to read it.
    pub is_ipxe: bool,
    /// Where what the script names is fetched.
    pub links: Links,
}

/// What iPXE reports of its boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It could not start the local disk.
    DiskFailed,
    /// It has all that it boots, and could not start it.
    KernelFailed,
}

/// Where what a script names is fetched.
#[derive(Clone, Copy, Debug)]
pub enum Links {
    /// Over HTTP, from this address and port.
    Http(SocketAddrV4),
    /// Over TFTP, from this address and port.
    Tftp(SocketAddrV4),
}

/// What is answered to a request for a machine's script.
#[derive(Debug)]
pub enum Answer {
    /// Its script, and the boot that it is of.
    Given(String, Does, BootId),
    /// A text that is of no boot: what everybody may see, or why there is no more. The event says which.
    Apart(String, Step),
    /// None.
    Nothing(Ignored, Option<BootId>),
}

/// Answers a request for a machine's script: opens or continues its boot if the request proves that it is the
/// machine's, and gives, shows or withholds what was decided.
pub fn answer(
    registry: &Registry,
    now: Snapshot<'_>,
    request: &ScriptRequest<'_>,
) -> (Subject, Answer) {
    let Snapshot { config, shelf } = now;
    let ScriptRequest { boot, client, report, is_ipxe, links } = *request;
    let catalog = &config.catalog;
    let subject = Subject { address: Some(boot.address), ..registry.whose(boot.card, catalog) };
    let admission = match catalog.identify(client) {
        Some(machine) if subject.name.as_ref() != Some(&machine.name) => {
            Err(Doubt::Unconfirmed(machine.name.clone(), boot.card))
        }
        Some(_) | None => registry.admit(&boot),
    };
    if let (Err(doubt @ Doubt::Forgeable(id)), Links::Tftp(at)) = (&admission, links) {
        let text = crate::pure::script::render::render_invitation(at, boot.card, *id);
        let step = Step::ScriptShown { from: boot.address, doubt: doubt.clone() };
        return (subject, Answer::Apart(text, step));
    }
    let mut state = match &admission {
        Ok(state) => std::sync::Arc::clone(state),
        Err(_) => registry.state(&subject),
    };
    let is_its = |state: &MachineState| state.open.as_ref().filter(|_| admission.is_ok()).cloned();
    if let Some(open) = is_its(&state).filter(|open| boot.id == Some(open.id) && !boot.is_head) {
        let failed = match report {
            Some(Report::DiskFailed) => state.disk_failed(),
            Some(Report::KernelFailed) => state.kernel_failed(),
            None => None,
        };
        if let Some(step) = failed {
            registry.record_in(Event { subject: subject.clone(), step }, Some(open.id));
            state = registry.state(&subject);
        }
    }
    let open = is_its(&state);
    let id = open.as_ref().map(|open| open.id);
    let doubt = admission.as_ref().err().cloned().unwrap_or(Doubt::NoBoot);
    let mut orders = registry.orders(&state, None);
    orders.registry_fault = registry.fault(&config.server);
    let templates = &config.templates;
    let script = match decide_script(client, catalog, templates.needs_facts(), (shelf, &orders)) {
        Ok(script) => script,
        Err(reason) => return (subject, Answer::Nothing(reason, id)),
    };
    let place = Place::of(links, open.as_deref(), config);
    let scene = place.scene((client, boot.card), shelf);
    let (text, does) = render(config, &script, scene);
    let shown = omni::hidden(&text, catalog.omni.values().map(AsRef::as_ref));
    // Whoever has the file id can fetch the answer files.
    let has_file_id = open.as_ref().is_some_and(|open| text.contains(&open.file_id.digits()));
    let has_secret = shown != text || has_file_id;
    let handled = admission::handle(admission::Request {
        script: &script,
        has_secret,
        boot: open.as_deref().ok_or(&doubt),
        is_ipxe,
        release: config.server.release,
    });
    let from = boot.address;
    let answer = match (handled, id) {
        (Handling::Give, Some(id)) => {
            if has_secret && !boot.is_head {
                registry.count_secret(&subject);
            }
            Answer::Given(text, does, id)
        }
        (Handling::Give, None) => Answer::Apart(text, Step::ScriptShown { from, doubt }),
        (Handling::Show(doubt), _) => {
            let head = format!(
                "# reveille: the script of {subject}, without secrets, to be read and not to be booted: {doubt}\n"
            );
            Answer::Apart(head + &shown, Step::ScriptShown { from, doubt })
        }
        (Handling::Withhold(why), _) => {
            let reason = why.to_string();
            let text = crate::pure::script::render::render_withheld(templates, scene, &reason);
            let step = match why {
                Withheld::Doubted(doubt) if !doubt.is_of_the_machine() => {
                    Step::ScriptWithheld { from, reason }
                }
                Withheld::Doubted(_) | Withheld::TooMany | Withheld::NotArmed => {
                    Step::Refused { what: "its script".to_owned(), reason }
                }
            };
            Answer::Apart(text, step)
        }
    };
    (subject, answer)
}

/// Where a boot's files are fetched.
#[derive(Debug)]
struct Place {
    base: String,
    http: String,
    id: Option<BootId>,
    file_id: Option<BootId>,
}

impl Place {
    fn of(links: Links, open: Option<&OpenBoot>, config: &Config) -> Self {
        let (id, file_id) = (open.map(|open| open.id), open.map(|open| open.file_id));
        match links {
            Links::Http(at) => {
                let base = urls::base(*at.ip(), at.port());
                Self { http: base.clone(), base, id, file_id }
            }
            Links::Tftp(at) => Self {
                base: urls::tftp_base(at, id),
                http: urls::base(*at.ip(), config.server.http_port),
                id: None,
                file_id,
            },
        }
    }

    fn scene<'a>(
        &'a self,
        (client, mac): (&'a Client, Mac),
        shelf: &'a crate::pure::catalog::image_status::Shelf,
    ) -> Scene<'a> {
        let Self { base, http, id, file_id } = self;
        Scene { client, mac, base, http, id: *id, file_id: *file_id, shelf }
    }
}

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

/// The script's text, and what it does.
fn render(config: &Config, script: &Script, scene: Scene<'_>) -> (String, Does) {
    match crate::pure::script::render::render(&config.templates, script, &config.catalog, scene) {
        Ok(Rendered { text, does, advice }) => {
            let client = Box::new(scene.client.clone());
            let does = match script.awaits() {
                Some(image) => Does::Wait(image.to_owned(), client),
                None => Does::Boot { starts: script.starts(), does, client, advice },
            };
            (text, does)
        }
        Err(refusal) => {
            let reason = refusal.to_string();
            let text =
                crate::pure::script::render::render_refusal(&config.templates, scene, &refusal);
            (text, Does::Refuse(reason))
        }
    }
}

/// A request for one of a machine's answer files.
#[derive(Clone, Copy, Debug)]
pub struct FileRequest<'a> {
    /// Who asks.
    pub boot: BootRequest<'a>,
    /// The id of the boot's files.
    pub file_id: Option<BootId>,
    /// The file's name.
    pub name: &'a str,
    /// Where the machine reaches our HTTP server.
    pub base: &'a str,
}

/// Answers a request for an answer file: it needs the file id of one of the machine's last boots, and comes
/// from one of its cards, whatever address that has by now.
///
/// # Errors
/// Why there is none, and what would mend that.
pub fn answer_file(
    registry: &Registry,
    now: Snapshot<'_>,
    request: &FileRequest<'_>,
) -> Result<String, String> {
    let FileRequest { boot, file_id, name, base } = *request;
    let Snapshot { config, .. } = now;
    let subject = registry.whose(boot.card, &config.catalog);
    let state = registry.state(&subject);
    // An installer tells nothing of its machine; what its iPXE told is remembered.
    let nothing = Client { mac: Some(boot.card), arch: state.arch, ..Client::at(Stage::Ipxe) };
    let client = state.client.as_deref().cloned().unwrap_or(nothing);
    let client = Client { address: Some(boot.address), ..client };
    let selection = select(&client, &config.catalog);
    let release = selection.profile().map_or(config.server.release, |profile| {
        release(profile, &selection.who, config.server.release)
    });
    let granted = registry.granted_files(&boot, file_id);
    let orders = match granted {
        Ok(orders) => orders,
        Err(_) if release == Release::Anyone => Orders::default(),
        Err(doubt) => return Err(format!("it is withheld: {doubt}")),
    };
    render_file((now, &orders), name, (boot.card, &client), (base, file_id))
}

/// Whose a fetch of a kernel or an initrd is, and the boot that it belongs to: it must carry that boot's id.
pub fn image_fetch(
    registry: &Registry,
    config: &Config,
    (mac, id): (Option<Mac>, Option<BootId>),
    (address, neighbour): (std::net::Ipv4Addr, Neighbour),
) -> (Subject, Option<BootId>) {
    let catalog = &config.catalog;
    if let (Some(mac), Some(id)) = (mac, id) {
        let boot = BootRequest::new(mac, (address, neighbour), config);
        let boot = BootRequest { id: Some(id), is_for_script: false, ..boot };
        if registry.admit(&boot).is_ok() {
            let subject = Subject { address: Some(address), ..registry.whose(mac, catalog) };
            return (subject, Some(id));
        }
    }
    (registry.subject_at(address, neighbour, catalog), None)
}

/// One of a machine's answer files.
///
/// # Errors
/// Why it gets none, and what would mend that.
pub fn render_file(
    (Snapshot { config, shelf }, orders): (Snapshot<'_>, &Orders),
    name: &str,
    (mac, client): (Mac, &Client),
    (base, file_id): (&str, Option<BootId>),
) -> Result<String, String> {
    // What is not known by now is not asked for any more.
    let facts = client.facts.clone().unwrap_or_default();
    let client = Client { facts: Some(facts), ..client.clone() };
    let needs_facts = config.templates.needs_facts();
    let script = decide_script(&client, &config.catalog, needs_facts, (shelf, orders));
    let script = script.map_err(|reason| reason.to_string())?;
    let scene = Scene { client: &client, mac, base, http: base, id: None, file_id, shelf };
    crate::pure::script::render::render_file(&config.templates, (&script, name), scene)
        .map_err(|why| why.to_string())
}

/// An iPXE without HTTP: all that it fetches comes over TFTP. There it sends nothing that stands behind a `?`,
/// so it can tell no SMBIOS facts, and what is chosen from a menu does not arrive.
pub fn client_without_http(mac: Mac, from: std::net::Ipv4Addr) -> Client {
    Client {
        mac: Some(mac),
        speaks_http: false,
        address: Some(from),
        facts: Some(Facts::default()),
        ..Client::at(Stage::Ipxe)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::loader::Source;
    use crate::pure::catalog::image_status::Shelf;
    use crate::pure::config::snapshot::Config;

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
        let arch = Some(crate::pure::client::Arch::UefiX64);
        let client = Client { mac: Some(mac), facts: Some(facts), arch, ..Client::at(Stage::Ipxe) };
        let now = Snapshot { config, shelf: &Shelf::default() };
        render_file(
            (now, &Orders::default()),
            name,
            (mac, &client),
            ("http://192.168.1.2:8080", None),
        )
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
        let settings = crate::pure::catalog::settings::Settings {
            vars: std::collections::BTreeMap::new(),
            ..profile.settings.clone()
        };
        let bare = crate::pure::catalog::Profile {
            name: "bare".into(),
            script: "debian".into(),
            has_own_script: false,
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
