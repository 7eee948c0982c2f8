//! A machine's own iPXE script, rendered from the templates in `boot-scripts/`.
//!
//! A template is minijinja; what it may use is told in the README. Whatever it prints through
//! `{{ … }}` is checked on its way into the script, since iPXE knows no quoting: a value is one
//! word, or, through the filter `words`, several; never a line break, an operator or a `${…}`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value, context};

use super::catalog::{Catalog, LocalBoot, Machine, Profile};
use super::cmdline::{self, CmdlineError, Flaw};
use super::decide::{Kind, Script};
use super::omni::redacted;
use super::{Client, Mac, links};

/// The templates that come with reveille, by name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("ask-smbios", include_str!("../../boot-scripts/ask-smbios.ipxe")),
    ("autoexec", include_str!("../../boot-scripts/autoexec.ipxe")),
    ("linux", include_str!("../../boot-scripts/linux.ipxe")),
    ("local-disk", include_str!("../../boot-scripts/local-disk.ipxe")),
    ("menu", include_str!("../../boot-scripts/menu.ipxe")),
    ("refused", include_str!("../../boot-scripts/refused.ipxe")),
    ("talos", include_str!("../../boot-scripts/talos.ipxe")),
];

/// How many steps a template may take: enough for a menu of a thousand profiles, and the end of a
/// loop that does not stop.
const FUEL: u64 = 50_000;

/// The templates of one snapshot, compiled.
pub struct Templates {
    env: Environment<'static>,
    broken: BTreeMap<String, String>,
}

/// What a script needs beyond who boots what.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The client that the script is for.
    pub client: &'a Client,
    /// Its hardware address.
    pub mac: Mac,
    /// Where this client reaches our HTTP server, as `http://192.168.1.2:8080`.
    pub base: &'a str,
    /// Whether the image's files are there.
    pub image: &'a Result<(), String>,
}

/// A script, ready to be served.
#[derive(Debug)]
pub struct Rendered {
    /// The text. It may hold a join token: never log it.
    pub text: String,
    /// What it does, in words.
    pub does: String,
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
        "there is no boot script `{0}`: none in the folder of `server.boot_scripts`, none built in"
    )]
    NoTemplate(String),
    /// The template cannot be used.
    #[error("{0}")]
    Template(String),
}

impl Default for Templates {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl Templates {
    /// Compiles the built-in templates, and over them `own`: template name to source, or why it cannot
    /// be read. A broken one is kept as such; only the boots that need it are refused.
    pub fn new(own: BTreeMap<String, Result<String, String>>) -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()
            .expect("the delimiters are minijinja's own");
        env.set_syntax(syntax);
        env.set_fuel(Some(FUEL));
        // Every template writes iPXE: no value goes in unchecked.
        env.set_auto_escape_callback(|_| AutoEscape::Custom("ipxe".into()));
        env.set_formatter(|out, _state, value| {
            let text = value.to_string();
            if !value.is_safe()
                && let Some(flaw) = Flaw::of(&text)
            {
                // The value is not repeated: it may be a secret.
                let reason = format!("a value that is printed here {flaw}");
                return Err(minijinja::Error::new(ErrorKind::BadEscape, reason));
            }
            out.write_str(&text).map_err(minijinja::Error::from)
        });
        env.add_filter("words", words);

        let mut broken = BTreeMap::new();
        let mut sources: BTreeMap<String, Result<String, String>> = BUILT_IN
            .iter()
            .map(|(name, source)| ((*name).to_owned(), Ok((*source).to_owned())))
            .collect();
        sources.extend(own);
        for (name, source) in sources {
            let compiled = source.and_then(|source| {
                let added = env.add_template_owned(file_name(&name), source);
                added.map_err(|error| told(&error))
            });
            if let Err(reason) = compiled {
                broken.insert(name, reason);
            }
        }
        Self { env, broken }
    }

    /// Whether there is a template of this name, usable or not.
    pub fn knows(&self, name: &str) -> bool {
        self.broken.contains_key(name) || self.env.get_template(&file_name(name)).is_ok()
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .env
            .templates()
            .filter_map(|(file, _)| Some(file.strip_suffix(".ipxe")?.to_owned()))
            .chain(self.broken.keys().cloned())
            .collect();
        names.sort();
        names
    }

    /// The text of one, or why it cannot be used.
    pub fn source(&self, name: &str) -> Option<Result<String, &str>> {
        if let Some(reason) = self.broken.get(name) {
            return Some(Err(reason));
        }
        let template = self.env.get_template(&file_name(name)).ok()?;
        Some(Ok(template.source().to_owned()))
    }

    /// The templates that do not compile, and why: with file and line.
    pub fn broken(&self) -> &BTreeMap<String, String> {
        &self.broken
    }

    fn fill(&self, name: &str, values: &Value) -> Result<String, Refusal> {
        if let Some(reason) = self.broken.get(name) {
            return Err(Refusal::Template(reason.clone()));
        }
        if !self.knows(name) {
            return Err(Refusal::NoTemplate(file_name(name)));
        }
        self.env
            .get_template(&file_name(name))
            .and_then(|template| template.render(values))
            .map_err(|error| Refusal::Template(told(&error)))
    }
}

impl std::fmt::Debug for Templates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
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
    let machine = script.machine.as_deref();
    let common = context! {
        machine => context! { mac => scene.mac.to_string(), name => name_of(machine, scene.mac) },
        base => scene.base,
        script_url => links::script_again(scene.base, scene.mac, scene.client),
    };
    let (template, own, does) = match &script.kind {
        Kind::Profile(profile) => (
            profile.script.as_str(),
            boot_values(profile, machine, scene)?,
            match &profile.image {
                Some(image) => format!("profile {}, image {}", profile.name, image.name),
                None => format!("profile {}", profile.name),
            },
        ),
        Kind::Menu(local_boot) => {
            ("menu", menu_values(catalog, *local_boot, scene), "the menu".to_owned())
        }
        Kind::LocalDisk(method) => {
            let method = method.word();
            let does = format!("to its local disk by {method}");
            ("local-disk", context! { local_boot => method }, does)
        }
        Kind::AskSmbios => ("ask-smbios", context! {}, "asked for its SMBIOS facts".to_owned()),
    };
    let text = templates.fill(template, &context! { ..own, ..common })?;
    Ok(Rendered { text, does })
}

/// The script for an iPXE that has not said yet which machine it is: it fetches that machine's own.
///
/// # Errors
/// The template cannot be used.
pub fn render_autoexec(templates: &Templates, base: &str) -> Result<String, Refusal> {
    templates.fill("autoexec", &context! { base => base })
}

/// The script of a machine that cannot boot: it says why on the machine's console, and asks again
/// half a minute later, so that a mended config needs no walk to the machine.
pub fn render_refusal(templates: &Templates, scene: Scene<'_>, refusal: &Refusal) -> String {
    let reason: Vec<String> = refusal
        .to_string()
        .split_whitespace()
        .filter(|word| Flaw::of(word).is_none())
        .map(str::to_owned)
        .collect();
    let values = context! {
        machine => context! { mac => scene.mac.to_string() },
        reason => reason.join(" "),
        script_url => links::script_again(scene.base, scene.mac, scene.client),
    };
    let own = templates.fill("refused", &values);
    own.unwrap_or_else(|_| {
        Templates::default()
            .fill("refused", &values)
            .unwrap_or_else(|_| "#!ipxe\necho reveille cannot boot this machine\nsleep 30\n".into())
    })
}

impl LocalBoot {
    /// The word for it in the config and in templates.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Sanboot => "sanboot",
        }
    }
}

fn boot_values(
    profile: &Profile,
    machine: Option<&Machine>,
    scene: Scene<'_>,
) -> Result<Value, Refusal> {
    let named = context! { profile => context! { name => &profile.name } };
    let Some(image) = &profile.image else {
        return Ok(named);
    };
    scene.image.clone().map_err(Refusal::Image)?;
    let line = cmdline::kernel_line(profile, image, machine)?;
    let file = |part: &str| links::image(scene.base, &image.name, part, scene.mac);
    let initrds: Vec<Value> = (0..image.initrds.len())
        .map(cmdline::initrd_name)
        .map(|name| context! { url => file(&name), name })
        .collect();
    Ok(context! {
        image => context! { name => &image.name },
        kernel => context! { name => cmdline::KERNEL_NAME, url => file("kernel") },
        initrds => initrds,
        // Every word of it has been checked.
        cmdline => Value::from_safe_string(line),
        ..named
    })
}

fn menu_values(catalog: &Catalog, local_boot: LocalBoot, scene: Scene<'_>) -> Value {
    let menu = &catalog.menu;
    let entries: Vec<Value> = menu
        .profiles
        .iter()
        .map(|profile| {
            let choosing = Client { choice: Some(profile.name.clone()), ..scene.client.clone() };
            let url = links::script_again(scene.base, scene.mac, &choosing);
            context! { name => &profile.name, url }
        })
        .collect();
    context! {
        menu => context! {
            profiles => entries,
            default => menu.default.as_ref().map(|profile| &profile.name),
            timeout_ms => u64::try_from(menu.timeout.as_millis()).unwrap_or(u64::MAX),
        },
        local_boot => local_boot.word(),
    }
}

fn name_of(machine: Option<&Machine>, mac: Mac) -> String {
    machine.map_or_else(|| mac.to_string(), |machine| machine.name.clone())
}

fn file_name(template: &str) -> String {
    format!("{template}.ipxe")
}

/// The filter `words`: blanks are wanted here, everything else is checked word by word.
fn words(text: &str) -> Result<Value, minijinja::Error> {
    let flaw = text.split(' ').find_map(Flaw::of);
    match flaw {
        Some(flaw) => Err(minijinja::Error::new(
            ErrorKind::BadEscape,
            format!("a word that is printed here {flaw}"),
        )),
        None => Ok(Value::from_safe_string(text.to_owned())),
    }
}

/// A template error with its place. Never minijinja's own debug print: that shows every variable.
fn told(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(
        || error.kind().to_string(),
        |detail| format!("{}: {}", error.kind(), redacted(detail)),
    );
    match (error.name(), error.line()) {
        (Some(file), Some(line)) => format!("boot script {file}:{line}: {what}"),
        (Some(file), None) => format!("boot script {file}: {what}"),
        (None, _) => what,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Stage;
    use super::super::catalog::Image;
    use super::super::catalog::Settings;
    use super::super::client::Smbios;
    use super::super::omni::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG, Omni};
    use super::*;

    const MAC: Mac = Mac::new([0x5c, 0xf3, 0xfc, 0, 0, 1]);
    const READY: Result<(), String> = Ok(());

    const CLIENT: Client = Client {
        mac: Some(MAC),
        arch: None,
        stage: Stage::Ipxe,
        speaks_http: true,
        uuid: None,
        smbios: None,
        choice: None,
    };

    fn scene() -> Scene<'static> {
        Scene { client: &CLIENT, mac: MAC, base: "http://192.168.1.2:8080", image: &READY }
    }

    fn arguments(word: &str) -> Settings {
        Settings { cmdline: vec![word.into()], ..Settings::default() }
    }

    fn profile(script: &str) -> Profile {
        Profile {
            name: "blade".into(),
            script: script.into(),
            image: Some(Arc::new(Image {
                name: "rack".into(),
                kernel: "/srv/vmlinuz".into(),
                initrds: vec!["/srv/initramfs.xz".into(), "/srv/firmware.cpio".into()],
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
            profile,
            settings: arguments("talos.hostname=oden"),
        })
    }

    fn of_profile(profile: Profile) -> Script {
        let profile = Arc::new(profile);
        Script { machine: Some(oden(Arc::clone(&profile))), kind: Kind::Profile(profile) }
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
            let script = Script { kind: Kind::LocalDisk(method), machine: None };
            insta::assert_snapshot!(
                format!("local_disk_{}", method.word()),
                rendered(&script, &Catalog::default())
            );
        }
    }

    #[test]
    fn menu() {
        let script = Script { kind: Kind::Menu(LocalBoot::Exit), machine: None };
        insta::assert_snapshot!("menu_empty", rendered(&script, &Catalog::default()));
        let mut catalog = Catalog::default();
        let [first, second] = ["talos", "rescue"]
            .map(|name| Arc::new(Profile { name: name.into(), ..profile("linux") }));
        catalog.menu.default = Some(Arc::clone(&second));
        catalog.menu.profiles = vec![first, second];
        insta::assert_snapshot!("menu", rendered(&script, &catalog));
    }

    #[test]
    fn what_a_client_told_and_chose_goes_with_every_further_request_of_its_script() {
        let mut catalog = Catalog::default();
        catalog.menu.profiles = vec![Arc::new(profile("linux"))];
        let told = Client { smbios: Some(Smbios { serial: Some("CZ 1&2".into()) }), ..CLIENT };
        let script = Script { kind: Kind::Menu(LocalBoot::Sanboot), machine: None };
        let asked = Scene { client: &told, ..scene() };
        let text = render(&Templates::default(), &script, &catalog, asked).unwrap().text;
        let url = "ipxe?mac=5c:f3:fc:00:00:01&uuid=&serial=CZ%201%262&profile=blade || goto failed";
        assert!(text.contains(url), "{text}");
        assert!(text.contains("\nsanboot "), "the machine's own way to its disk: {text}");

        let chosen = Client { choice: Some("blade".into()), ..CLIENT };
        let script = Script { kind: Kind::AskSmbios, machine: None };
        let asked = Scene { client: &chosen, ..scene() };
        let text = render(&Templates::default(), &script, &catalog, asked).unwrap().text;
        let url =
            "ipxe?mac=5c:f3:fc:00:00:01&profile=blade&uuid=${uuid}&serial=${serial:uristring} ";
        assert!(text.contains(url), "{text}");
    }

    #[test]
    fn ask_smbios() {
        let script = Script { kind: Kind::AskSmbios, machine: None };
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
    fn a_missing_image_a_missing_template_and_a_bad_line_are_refused_with_their_reason() {
        let missing = Err("image rack has no /srv/vmlinuz".to_owned());
        let no_image = Scene { image: &missing, ..scene() };
        let refused = |script: &Script, scene| {
            let catalog = Catalog::default();
            render(&Templates::default(), script, &catalog, scene).unwrap_err().to_string()
        };
        assert_eq!(
            refused(&of_profile(profile("talos")), no_image),
            "image rack has no /srv/vmlinuz"
        );
        assert_eq!(
            refused(&of_profile(profile("coreos")), scene()),
            "there is no boot script `coreos.ipxe`: none in the folder of `server.boot_scripts`, none built in"
        );
        let bad = Profile { settings: arguments("&&"), ..profile("linux") };
        assert_eq!(
            refused(&of_profile(bad), scene()),
            "argument `&&` of profile `blade` is an operator to iPXE, which would end the kernel line there"
        );
    }

    fn own(source: &str) -> Templates {
        Templates::new([("own".to_owned(), Ok(source.to_owned()))].into())
    }

    #[test]
    fn a_value_cannot_break_out_of_its_place() {
        for value in ["x\nshell", "||", "${uuid}", "#", "a b", "x\\"] {
            let templates = own("#!ipxe\necho {{ profile.name }}\n");
            let script = of_profile(Profile { name: value.into(), ..profile("own") });
            let error = render(&templates, &script, &Catalog::default(), scene()).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("boot script own.ipxe:2: "), "{value:?}: {error}");
            assert!(!error.contains("shell"), "the value is not repeated: {error}");
        }
    }

    #[test]
    fn a_mistake_in_a_template_is_told_with_its_line_and_without_any_value() {
        let table = [
            ("#!ipxe\necho {{ machin.name }}\n", "boot script own.ipxe:2: undefined value"),
            ("#!ipxe\n\n{% if %}\n", "boot script own.ipxe:3: syntax error"),
            (
                "#!ipxe\n{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
                "boot script own.ipxe:2: engine ran out of fuel",
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
        let templates = Templates::new([mine].into());
        let script = of_profile(profile("talos"));
        let text = render(&templates, &script, &Catalog::default(), scene()).unwrap().text;
        assert_eq!(text, "#!ipxe\necho mine\n");
    }
}
