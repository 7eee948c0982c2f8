//! A machine's own iPXE script and its answer files, rendered from the templates of the snapshot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use minijinja::{Value, context};

use super::advice::{Booted, advise};
use super::cmdline::{self, CmdlineError};
use super::templates::{Mistake, Templates};
use crate::pure::boot::decide::{Hold, Kind, Script};
use crate::pure::boot::urls;
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::settings::{LocalBoot, Settings, Var};
use crate::pure::catalog::wipes::wipes;
use crate::pure::catalog::{Catalog, Profile, image_set};
use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Client, Mac};
use crate::pure::event::advice::Advice;

/// How long a machine, or who else asks for an image, waits before it asks again whether the image is here.
pub const WAIT: Duration = Duration::from_secs(5);

/// What a script needs beyond who boots what.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The client that the script is for.
    pub client: &'a Client,
    /// Its hardware address.
    pub mac: Mac,
    /// Where this client reaches our HTTP server, as `http://192.168.1.2:8080`.
    pub base: &'a str,
    /// The same over HTTP: an installer has it, also where the iPXE before it had not.
    pub http: &'a str,
    /// The id of its boot, where it stands behind a `?`.
    pub id: Option<BootId>,
    /// The id of its answer files.
    pub file_id: Option<BootId>,
    /// Which images are here.
    pub shelf: &'a Shelf,
}

/// A script, ready to be served. What prints it leaves out its text, which may hold a join token.
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What it does, in words.
    pub does: String,
    /// What is worth knowing of the machine that it boots.
    pub advice: Vec<Advice>,
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text: _, does, advice } = self;
        let mut told = f.debug_struct("Rendered");
        told.field("does", does).field("advice", advice).finish_non_exhaustive()
    }
}

/// Why a machine gets no script of its own.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The image's files are not there.
    #[error("{0}")]
    Image(String),
    /// The kernel line cannot be served.
    #[error("{0}")]
    Cmdline(#[from] CmdlineError),
    /// There is no such template.
    #[error(
        "there is no boot script `{0}.ipxe`: none in the folder of `server.boot_scripts`, none built in"
    )]
    NoTemplate(String),
    /// The template cannot be used.
    #[error("{0}")]
    Template(#[from] Mistake),
    /// The machine has no such answer file.
    #[error("{0}")]
    NoFile(String),
}

/// Renders the script that was decided on.
///
/// # Errors
/// Why this machine cannot boot, in words for the operator and for the machine's own console.
pub fn render(
    templates: &Templates,
    script: &Script,
    catalog: &Catalog,
    scene: Scene<'_>,
) -> Result<Rendered, Refusal> {
    let filled = fill(templates, script, catalog, scene);
    // A mistake in a template is known also while the image is missing.
    if let Kind::Profile(profile) = &script.kind
        && let Some(missing) = profile.image.as_ref().and_then(|image| image.missing.as_ref())
        && !matches!(filled, Err(Refusal::Template(_)))
    {
        return Err(Refusal::Image(missing.clone()));
    }
    filled
}

fn fill(
    templates: &Templates,
    script: &Script,
    catalog: &Catalog,
    scene: Scene<'_>,
) -> Result<Rendered, Refusal> {
    let Script { kind, who, because, write_error, .. } = script;
    let (template, own, does) = match kind {
        Kind::Profile(profile) => (
            profile.script.as_str(),
            boot_values(profile, who, scene)?,
            match &profile.image {
                Some(image) => format!("profile {}, image {}", profile.name, image.name),
                None => format!("profile {}", profile.name),
            },
        ),
        Kind::Waiting(profile, coming) => {
            let image = profile.image.as_ref().map(|image| image.name.as_str()).unwrap_or_default();
            let does = format!("profile {} waits for image {image}: {coming}", profile.name);
            let own = context! {
                image => context! { name => image },
                progress => coming.to_string(),
                seconds => WAIT.as_secs(),
            };
            ("waiting", own, does)
        }
        Kind::Menu(local_boot) => {
            ("menu", menu_values(catalog, who, *local_boot, scene), "the menu".to_owned())
        }
        Kind::LocalDisk(local_boot) => {
            let method = local_boot.word();
            // Who is to get no answer, and asks for a script all the same, leaves iPXE.
            let does = match local_boot {
                LocalBoot::Silent => LocalBoot::Exit.word(),
                LocalBoot::Exit | LocalBoot::Sanboot | LocalBoot::Http404 => method,
            };
            let because = because.map(|because| because.to_string());
            let told = because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
            let does = format!("to its local disk by {does}{told}");
            ("local-disk", context! { local_boot => method, because }, does)
        }
        Kind::Hold(hold) => {
            let (method, does) = match hold {
                Hold::DiskAgain(method) => {
                    (Some(method.word()), "its local disk again after a minute")
                }
                Hold::Stay => (None, "holds"),
            };
            let because = because.map(|because| because.to_string()).unwrap_or_default();
            let does = format!("{does}: {because}");
            let because = match write_error {
                Some(reason) => format!("{because} ({reason})"),
                None => because,
            };
            let seconds = crate::pure::machine::state::DISK_AGAIN.as_secs();
            ("hold", context! { local_boot => method, because, seconds }, does)
        }
        Kind::AskFacts => ("ask-facts", context! {}, "asked what machine it is".to_owned()),
    };
    let profile = match kind {
        Kind::Profile(profile) | Kind::Waiting(profile, _) => Some(&**profile),
        Kind::Menu(_) | Kind::LocalDisk(_) | Kind::Hold(_) | Kind::AskFacts => None,
    };
    if !templates.knows(template) {
        return Err(Refusal::NoTemplate(template.to_owned()));
    }
    let common = common_values(who, profile, scene);
    let text = templates.script(template, &context! { ..own, ..common })?;
    kernel_lines(&text).try_for_each(cmdline::fits)?;
    let advice = advice(kind, who, &text, scene);
    Ok(Rendered { text, does, advice })
}

/// What is worth knowing of a machine that boots Talos, by what it told of itself.
fn advice(kind: &Kind, who: &Who, text: &str, scene: Scene<'_>) -> Vec<Advice> {
    let Kind::Profile(profile) = kind else {
        return Vec::new();
    };
    let Some(image) = profile.image.as_ref().filter(|_| profile.adds_talos_arguments()) else {
        return Vec::new();
    };
    let line = kernel_lines(text).next().unwrap_or_default();
    let vars = added_up(who, Some(profile), |said| &said.vars);
    let any_cpu = matches!(vars.get("any_cpu"), Some(Var::Flag(true)));
    let booted = Booted { needs_v2: !any_cpu, ..Booted::new(image, scene.shelf, line) };
    advise(scene.client, booted)
}

/// Renders one of a machine's answer files.
///
/// # Errors
/// There is none of this name, or it cannot be filled in.
pub fn render_file(
    templates: &Templates,
    (script, name): (&Script, &str),
    scene: Scene<'_>,
) -> Result<String, Refusal> {
    let profile = match &script.kind {
        Kind::Profile(profile) | Kind::Waiting(profile, _) => profile,
        Kind::Menu(_) | Kind::LocalDisk(_) | Kind::Hold(_) | Kind::AskFacts => {
            let why = "the machine boots no profile, and so has no files";
            return Err(Refusal::NoFile(why.to_owned()));
        }
    };
    let files = files(&script.who, profile);
    let Some(path) = files.get(name) else {
        let known: Vec<&str> = files.keys().copied().collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let why = format!("profile {} has no file of this name; it has: {known}", profile.name);
        return Err(Refusal::NoFile(why));
    };
    let own = boot_values(profile, &script.who, scene)?;
    let common = common_values(&script.who, Some(profile), scene);
    // It was looked at as iPXE reads it; here it is a text like any other.
    let cmdline = own.get_attr("cmdline").ok().and_then(|line| Some(line.as_str()?.to_owned()));
    let here = context! { omni => omni_values(profile), cmdline => cmdline };
    Ok(templates.answer(path, &context! { ..here, ..own, ..common })?)
}

/// The script for an iPXE that has not said yet which machine it is: it fetches that machine's own.
///
/// # Errors
/// The template cannot be used.
pub fn render_autoexec(templates: &Templates, base: &str) -> Result<String, Refusal> {
    Ok(templates.script("autoexec", &context! { base => base })?)
}

/// The script that leads an iPXE without HTTP to its own, which it asks for with the id of the boot.
pub fn render_invitation(at: SocketAddrV4, mac: Mac, id: BootId) -> String {
    let url = urls::script(&urls::tftp_base(at, Some(id)), mac);
    format!(
        "#!ipxe\n:again\nchain --replace --autofree {url} ||\n\
         echo reveille: the script could not be fetched - next try in 10 seconds, Ctrl-C for a shell\n\
         sleep 10 || shell\ngoto again\n"
    )
}

/// The script of a machine that cannot boot: it says why on the machine's console, and asks again
/// half a minute later, so that a mended config needs no walk to the machine.
pub fn render_refusal(templates: &Templates, scene: Scene<'_>, refusal: &Refusal) -> String {
    render_reason(templates, scene, (&refusal.to_string(), false))
}

/// The same of a machine whose script is withheld: it asks DHCP again before it asks for its script, since a
/// machine that is not known to be booting is so by then.
pub fn render_withheld(templates: &Templates, scene: Scene<'_>, reason: &str) -> String {
    render_reason(templates, scene, (reason, true))
}

fn render_reason(
    templates: &Templates,
    scene: Scene<'_>,
    (reason, asks_dhcp): (&str, bool),
) -> String {
    let values = context! {
        machine => context! { mac => scene.mac.to_string() },
        reason,
        script_url => urls::script_again(scene.base, scene.mac, scene.client, scene.id),
        asks_dhcp,
    };
    let own = templates.script("refused", &values);
    own.unwrap_or_else(|_| {
        Templates::default()
            .script("refused", &values)
            .unwrap_or_else(|_| "#!ipxe\necho reveille cannot boot this machine\nsleep 30\n".into())
    })
}

/// What the kernels of a script are started with. It may hold a join token.
pub fn kernel_lines(script: &str) -> impl Iterator<Item = &str> {
    script.lines().filter_map(kernel_arguments)
}

/// What a line of a script starts a kernel with: `kernel --name kernel http://… quiet || goto failed`.
/// Templates add to what the config says.
fn kernel_arguments(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("kernel ")?;
    let rest =
        rest.strip_prefix("--name ").map_or(Some(rest), |rest| Some(rest.split_once(' ')?.1));
    let (_, arguments) = rest?.split_once(' ')?;
    Some(arguments.split(" || ").next().unwrap_or(arguments))
}

/// What every template may use.
fn common_values(who: &Who, profile: Option<&Profile>, scene: Scene<'_>) -> Value {
    let Scene { client, mac, base, http, id, file_id, shelf: _ } = scene;
    let machine = who.machine.as_deref();
    let network = machine.map(|machine| &machine.network);
    let facts = client.facts.as_ref();
    let vars = added_up(who, profile, |said| &said.vars);
    let vars: BTreeMap<&str, Value> =
        vars.into_iter().map(|(name, var)| (name, of_var(var))).collect();
    let urls: BTreeMap<&str, Value> = profile
        .map(|profile| files(who, profile))
        .into_iter()
        .flatten()
        .map(|(name, _)| (name, Value::from_safe_string(urls::file(http, mac, file_id, name))))
        .collect();
    let script_url = urls::script_again(base, mac, client, id);
    let start_url = client
        .choice
        .is_some()
        .then(|| urls::script_again(base, mac, &Client { choice: None, ..client.clone() }, id));
    let uuid = client.uuid.or_else(|| machine?.uuid);
    let told_serial = facts.and_then(|facts| facts.serial.as_ref());
    let serial = told_serial.or_else(|| machine?.serial.as_ref());
    context! {
        machine => context! {
            name => machine.map_or_else(|| mac.to_string(), |machine| machine.name.clone()),
            mac => mac.to_string(),
            uuid => uuid.map(|uuid| uuid.to_string()),
            serial => serial,
            hostname => network.and_then(|network| network.hostname.as_ref()),
            ip => network.and_then(|network| network.ip).map(|ip| ip.addr().to_string()),
            prefix => network.and_then(|network| network.ip).map(|ip| ip.prefix_len()),
            netmask => network.and_then(|network| network.ip).map(|ip| ip.netmask().to_string()),
            gateway => network.and_then(|network| network.gateway).map(|ip| ip.to_string()),
            nic => network.and_then(|network| network.nic.as_ref()),
            dns => network.map_or(Vec::new(), |network| {
                network.dns.iter().map(ToString::to_string).collect()
            }),
            vars => vars,
        },
        client => context! {
            mac => mac.to_string(),
            address => client.address.map(|address| address.to_string()),
            firmware => client.firmware().map(|firmware| firmware.to_string()),
            cpu => client.cpu().map(|cpu| cpu.to_string()),
            uuid => client.uuid.map(|uuid| uuid.to_string()),
            serial => told_serial,
            product => facts.and_then(|facts| facts.product.as_ref()),
            vendor => facts.and_then(|facts| facts.vendor.as_ref()),
            nic => facts.and_then(|facts| facts.nic).map(|nic| nic.to_string()),
        },
        group => who.group.as_ref().map(|group| &group.name),
        profile => context! { name => profile.map(|profile| &profile.name) },
        files => urls,
        files_url => urls::files(http, mac, file_id),
        base => base,
        script_url => &script_url,
        start_url => start_url.as_ref().unwrap_or(&script_url),
    }
}

fn of_var(var: &Var) -> Value {
    match var {
        Var::Flag(flag) => Value::from(*flag),
        Var::Number(number) => Value::from(*number),
        Var::Text(text) => Value::from(text.as_str()),
        Var::List(list) => list.iter().map(of_var).collect(),
        Var::Map(map) => {
            let pairs = map.iter().map(|(name, var)| (name.as_str(), of_var(var)));
            pairs.collect::<BTreeMap<&str, Value>>().into()
        }
    }
}

fn boot_values(profile: &Profile, who: &Who, scene: Scene<'_>) -> Result<Value, Refusal> {
    let Some(image) = &profile.image else {
        return Ok(context! {});
    };
    let line = cmdline::kernel_line(profile, image, who, scene.shelf)?;
    let file = |name: &str, part| {
        let whose = (scene.mac, scene.id);
        urls::image(scene.base, (&image.name, name), whose, scene.shelf.mark(part))
    };
    let initrds: Vec<Value> = image
        .files
        .initrds
        .iter()
        .enumerate()
        .map(|(at, part)| (image_set::initrd_name(at), part))
        .map(|(name, part)| context! { url => file(&name, part), name })
        .collect();
    let told = image.talos.as_ref().and_then(|talos| talos.version);
    let version = told.or_else(|| scene.shelf.kernel_set(image)?.talos);
    let version = version.map(|version| version.to_string());
    Ok(context! {
        image => context! {
            name => &image.name,
            version => version,
            arch => image.talos.as_ref().map(|talos| talos.arch.to_string()),
        },
        kernel => context! { name => image_set::KERNEL_NAME, url => file(image_set::KERNEL_NAME, &image.files.kernel) },
        initrds => initrds,
        // Every word of it has been checked.
        cmdline => Value::from_safe_string(line),
    })
}

/// The Omni instance, for a Talos machine config. The URL holds the join token. What is no address, and could
/// end the text that it is printed in, is not there.
fn omni_values(profile: &Profile) -> Option<Value> {
    let omni = profile.omni.as_ref()?;
    let [api, events, kernel_log] = omni.arguments().ok()?;
    let value = |argument: &str| {
        let is_of_an_address = |c: char| c.is_ascii_alphanumeric() || ".-_~:/?[]@=%&+".contains(c);
        let (_, value) = argument.split_once('=')?;
        value.chars().all(is_of_an_address).then(|| Value::from_safe_string(value.to_owned()))
    };
    Some(context! {
        name => &omni.name,
        api_url => value(&api),
        events => value(&events),
        kernel_log => value(&kernel_log),
    })
}

fn menu_values(catalog: &Catalog, who: &Who, local_boot: LocalBoot, scene: Scene<'_>) -> Value {
    let menu = &catalog.menu;
    // The default starts without a question, so it is never one that wipes, whatever machine is asked.
    let default = menu.default.as_ref().filter(|profile| !wipes(profile, who));
    let entries: Vec<Value> = menu
        .profiles
        .iter()
        .map(|profile| {
            let choosing = Client { choice: Some(profile.name.clone()), ..scene.client.clone() };
            let url = urls::script_again(scene.base, scene.mac, &choosing, scene.id);
            context! { name => &profile.name, url, wipes => wipes(profile, who) }
        })
        .collect();
    context! {
        menu => context! {
            profiles => entries,
            default => default.map(|profile| &profile.name),
            timeout_ms => u64::try_from(menu.timeout.as_millis()).unwrap_or(u64::MAX),
        },
        local_boot => local_boot.word(),
    }
}

/// A machine's answer files, by name.
fn files<'a>(who: &'a Who, profile: &'a Profile) -> BTreeMap<&'a str, &'a PathBuf> {
    added_up(who, Some(profile), |said| &said.files)
}

/// What adds up: the machine's word comes before its group's, that before its profile's.
fn added_up<'a, T>(
    who: &'a Who,
    profile: Option<&'a Profile>,
    said: impl Fn(&'a Settings) -> &'a BTreeMap<String, T>,
) -> BTreeMap<&'a str, &'a T> {
    let all = who.settings(profile).rev().flat_map(said);
    all.map(|(name, value)| (name.as_str(), value)).collect()
}

#[cfg(test)]
mod shipped;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use super::*;
    use crate::pure::catalog::omni::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG, Omni};
    use crate::pure::catalog::{Files, Image, Machine, Network, Part};
    use crate::pure::client::{Facts, Stage};

    const MAC: Mac = Mac::new([0x5c, 0xf3, 0xfc, 0, 0, 1]);

    static CLIENT: LazyLock<Client> = LazyLock::new(client);
    static SHELF: Shelf = Shelf { sets: BTreeMap::new() };

    fn client() -> Client {
        Client { mac: Some(MAC), ..Client::at(Stage::Ipxe) }
    }

    fn scene() -> Scene<'static> {
        let base = "http://192.168.1.2:8080";
        Scene {
            client: &CLIENT,
            mac: MAC,
            base,
            http: base,
            id: None,
            file_id: None,
            shelf: &SHELF,
        }
    }

    fn arguments(word: &str) -> Settings {
        Settings { cmdline: vec![word.into()], ..Settings::default() }
    }

    fn profile(script: &str) -> Profile {
        Profile {
            name: "blade".into(),
            script: script.into(),
            has_own_script: false,
            image: Some(Arc::new(Image {
                name: "rack".into(),
                files: Files {
                    kernel: Part::Own("/srv/vmlinuz".into()),
                    initrds: ["/srv/initramfs.xz", "/srv/firmware.cpio"]
                        .map(|path| Part::Own(path.into()))
                        .into(),
                },
                missing: None,
                cmdline: vec![],
                talos: None,
            })),
            omni: Some(Arc::new(Omni {
                name: "homelab".into(),
                api: "https://x.omni.siderolabs.io".into(),
                join_token: Ok("abcd".into()),
                tunnel: false,
                events: DEFAULT_EVENTS.into(),
                kernel_log: DEFAULT_KERNEL_LOG.into(),
            })),
            settings: arguments("console=ttyS1,115200n8"),
        }
    }

    fn oden(profile: Arc<Profile>) -> Arc<Machine> {
        Arc::new(Machine {
            name: "oden".into(),
            macs: vec![MAC],
            uuid: None,
            serial: None,
            profile: Some(profile),
            network: Network::default(),
            settings: arguments("talos.hostname=oden"),
        })
    }

    fn of_profile(profile: Profile) -> Script {
        let profile = Arc::new(profile);
        let who = Who { machine: Some(oden(Arc::clone(&profile))), group: None };
        Script::new(Kind::Profile(profile), who)
    }

    fn rendered(script: &Script, catalog: &Catalog) -> String {
        render(&Templates::default(), script, catalog, scene()).unwrap().text
    }

    #[test]
    fn talos() {
        insta::assert_snapshot!(rendered(&of_profile(profile("talos")), &Catalog::default()));
    }

    #[test]
    fn linux() {
        let profile = Profile { omni: None, ..profile("linux") };
        insta::assert_snapshot!(rendered(&of_profile(profile), &Catalog::default()));
    }

    #[test]
    fn local_disk() {
        for method in [LocalBoot::Exit, LocalBoot::Sanboot] {
            let script = Script::new(Kind::LocalDisk(method), Who::default());
            insta::assert_snapshot!(
                format!("local_disk_{}", method.word()),
                rendered(&script, &Catalog::default())
            );
        }
    }

    #[test]
    fn menu() {
        let script = Script::new(Kind::Menu(LocalBoot::Exit), Who::default());
        insta::assert_snapshot!("menu_empty", rendered(&script, &Catalog::default()));
        let mut catalog = Catalog::default();
        let [first, second] = ["talos", "rescue"]
            .map(|name| Arc::new(Profile { name: name.into(), ..profile("linux") }));
        catalog.menu.default = Some(Arc::clone(&second));
        catalog.menu.profiles = vec![first, second];
        insta::assert_snapshot!("menu", rendered(&script, &catalog));
    }

    #[test]
    fn the_menu_asks_before_what_wipes_and_never_starts_it_by_itself() {
        let mut catalog = Catalog::default();
        let [installer, rescue] = [("debian", "debian"), ("rescue", "linux")]
            .map(|(name, script)| Arc::new(Profile { name: name.into(), ..profile(script) }));
        catalog.menu.default = Some(Arc::clone(&installer));
        catalog.menu.profiles = vec![installer, rescue];
        let script = Script::new(Kind::Menu(LocalBoot::Exit), Who::default());
        insta::assert_snapshot!("menu_wipes", rendered(&script, &catalog));
    }

    #[test]
    fn what_a_client_told_and_chose_goes_with_every_further_request_of_its_script() {
        let mut catalog = Catalog::default();
        catalog.menu.profiles = vec![Arc::new(profile("linux"))];
        let told = Client {
            facts: Some(Facts { serial: Some("CZ 1&2".into()), ..Facts::default() }),
            ..client()
        };
        let script = Script::new(Kind::Menu(LocalBoot::Sanboot), Who::default());
        let asked = Scene { client: &told, ..scene() };
        let text = render(&Templates::default(), &script, &catalog, asked).unwrap().text;
        let url = "ipxe?mac=5c:f3:fc:00:00:01&uuid=&serial_hex=43-5a-20-31-26-32&product_hex=&vendor_hex=&profile=blade || goto failed";
        assert!(text.contains(url), "{text}");
        assert!(text.contains("\nsanboot "), "the machine's own way to its disk: {text}");

        let chosen = Client { choice: Some("blade".into()), ..client() };
        let script = Script::new(Kind::AskFacts, Who::default());
        let asked = Scene { client: &chosen, ..scene() };
        let text = render(&Templates::default(), &script, &catalog, asked).unwrap().text;
        let url = "ipxe?mac=5c:f3:fc:00:00:01&profile=blade&uuid=${uuid}&serial_hex=${serial:hexhyp}&product_hex=";
        assert!(text.contains(url), "{text}");
    }

    #[test]
    fn ask_facts() {
        let script = Script::new(Kind::AskFacts, Who::default());
        insta::assert_snapshot!(rendered(&script, &Catalog::default()));
    }

    #[test]
    fn autoexec() {
        let base = "http://192.168.1.2:8080";
        insta::assert_snapshot!(render_autoexec(&Templates::default(), base).unwrap());
    }

    #[test]
    fn refused() {
        let refusal = Refusal::Image("image rack has no /srv/vmlinuz: ${x} is || gone".into());
        insta::assert_snapshot!(render_refusal(&Templates::default(), scene(), &refusal));
    }

    #[test]
    fn every_script_starts_as_ipxe_wants_and_each_initrd_goes_by_the_name_on_the_kernel_line() {
        let text = rendered(&of_profile(profile("talos")), &Catalog::default());
        assert!(text.starts_with("#!ipxe\n"), "{text}");
        for name in ["initrd", "initrd.1"] {
            assert!(text.contains(&format!(" initrd={name} ")), "{text}");
            assert!(text.contains(&format!("\ninitrd --name {name} http://")), "{text}");
        }
    }

    #[test]
    fn what_is_harmless_to_ipxe_does_not_break_out_of_an_answer_file() {
        let answer = |source: &str, arguments: &str, api: &str| {
            let path = PathBuf::from("/answers/a");
            let sources = [(path.clone(), Ok(source.to_owned()))].into();
            let templates = Templates::new(BTreeMap::new(), sources);
            let mut profile = profile("talos");
            profile.settings = self::arguments(arguments);
            profile.settings.files.insert("a".into(), path);
            profile.omni = profile
                .omni
                .and_then(Arc::into_inner)
                .map(|omni| Arc::new(Omni { api: api.into(), ..omni }));
            render_file(&templates, (&of_profile(profile), "a"), scene()).map_err(|e| e.to_string())
        };
        let api = "https://x.omni.siderolabs.io";
        let url = answer("{{ omni.api_url }}", "quiet", api).unwrap();
        assert_eq!(url, format!("{api}?jointoken=abcd"));
        assert!(answer("{{ omni.api_url }}", "quiet", "https://x\"y$(id)").is_err());
        assert!(answer("\"{{ cmdline }}\"", "bar=$(id)", api).is_err());
        assert!(answer("\"{{ cmdline | words }}\"", "foo=\"x", api).is_err());
        let quoted = answer("{{ cmdline | tojson }}", "foo=\"x", api).unwrap();
        assert!(quoted.contains(r#" foo=\"x "#), "{quoted}");
    }

    #[test]
    fn a_missing_image_a_missing_template_and_a_bad_line_are_refused_with_their_reason() {
        let refused = |script: &Script, scene| {
            let catalog = Catalog::default();
            render(&Templates::default(), script, &catalog, scene).unwrap_err().to_string()
        };
        let mut without = profile("talos");
        without.image = without.image.and_then(Arc::into_inner).map(|image| {
            Arc::new(Image { missing: Some("image rack has no /srv/vmlinuz".into()), ..image })
        });
        assert_eq!(refused(&of_profile(without), scene()), "image rack has no /srv/vmlinuz");
        assert_eq!(
            refused(&of_profile(profile("nixos")), scene()),
            "there is no boot script `nixos.ipxe`: none in the folder of `server.boot_scripts`, none built in"
        );
        let bad = Profile { settings: arguments("&&"), ..profile("linux") };
        assert_eq!(
            refused(&of_profile(bad), scene()),
            "argument `&&` of profile `blade` is an operator to iPXE, which would end the command there"
        );
    }

    fn own(source: &str) -> Templates {
        Templates::new([("own".to_owned(), Ok(source.to_owned()))].into(), BTreeMap::new())
    }

    #[test]
    fn a_value_cannot_break_out_of_its_place() {
        for value in ["x\nshell", "||", "${uuid}", "#", "a b", "x\\"] {
            let templates = own("#!ipxe\necho {{ profile.name }}\n");
            let script = of_profile(Profile { name: value.into(), ..profile("own") });
            let error = render(&templates, &script, &Catalog::default(), scene()).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("template own.ipxe:2: "), "{value:?}: {error}");
            assert!(!error.contains("shell"), "the value is not repeated: {error}");
        }
    }

    #[test]
    fn a_mistake_in_a_template_is_told_with_its_line_and_without_any_value() {
        let table = [
            (
                "#!ipxe\necho {{ machin.name }}\n",
                "template own.ipxe:2: `machin.name` is not known; did you mean `machine.name`?",
            ),
            ("#!ipxe\n\n{% if %}\n", "template own.ipxe:3: syntax error"),
            (
                "#!ipxe\n{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
                "template own.ipxe:2: it takes more steps than any script needs",
            ),
        ];
        for (source, expected) in table {
            let templates = own(source);
            let script = of_profile(profile("own"));
            let error = render(&templates, &script, &Catalog::default(), scene()).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert!(!error.to_string().contains("abcd"), "{error}");
        }
    }

    #[test]
    fn an_own_template_comes_before_the_built_in_one() {
        let mine = ("talos".to_owned(), Ok("#!ipxe\necho mine\n".to_owned()));
        let templates = Templates::new([mine].into(), BTreeMap::new());
        let script = of_profile(profile("talos"));
        let text = render(&templates, &script, &Catalog::default(), scene()).unwrap().text;
        assert_eq!(text, "#!ipxe\necho mine\n");
    }
}
