//! The kernel line, put together from everyone who has a say in it.
//!
//! iPXE has no quoting: it splits a line at blanks, takes a whole word `||`, `&&` or `;` and a word
//! that starts with `#` for the end of the command (`core/exec.c`), and expands every `${…}`, the
//! result again (`core/settings.c`). On BIOS a line over the kernel's own limit is cut without a
//! word (`arch/x86/image/bzimage.c`). None of this can be escaped, so it is refused here, by name,
//! before a machine boots half a line.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;

use super::catalog::{Image, Network, Profile};
use super::omni::redacted;
use super::select::Who;
use super::shelf::Shelf;
use super::talos::{self, TalosVersion};

/// The longest kernel line that every kernel takes whole: `COMMAND_LINE_SIZE` on x86 is 2048 with
/// its NUL, and iPXE adds a name or two of its own.
pub const MAX_LEN: usize = 2040;

/// The iPXE name of the kernel. On UEFI the kernel sees it as the first word of its line.
pub const KERNEL_NAME: &str = "kernel";

/// The iPXE name of the initial RAM disk at `index`: `initrd`, `initrd.1`, …
pub fn initrd_name(index: usize) -> String {
    match index {
        0 => "initrd".to_owned(),
        n => format!("initrd.{n}"),
    }
}

/// Who asked for an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Initrd,
    Base,
    Omni,
    Image,
    Profile,
    Group,
    Machine,
}

/// One kernel argument and who asked for it.
struct Argument<'a> {
    layer: Layer,
    /// The name of the image, profile, … that asked.
    owner: &'a str,
    text: String,
}

impl fmt::Display for Argument<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, owner, .. } = self;
        let text = redacted(&self.text);
        match layer {
            Layer::Initrd => write!(f, "`{text}`"),
            Layer::Base => write!(f, "Talos' own argument `{text}`"),
            Layer::Omni => {
                // The value may be the join token.
                let name = text.split('=').next().unwrap_or_default();
                write!(f, "`{name}=***` of omni `{owner}`")
            }
            Layer::Image => write!(f, "argument `{text}` of image `{owner}`"),
            Layer::Profile => write!(f, "argument `{text}` of profile `{owner}`"),
            Layer::Group => write!(f, "argument `{text}` of group `{owner}`"),
            Layer::Machine => write!(f, "argument `{text}` of machine `{owner}`"),
        }
    }
}

/// Why a kernel line cannot be served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CmdlineError {
    /// One argument that iPXE would cut or expand.
    #[error("{argument} {flaw}")]
    Argument {
        /// Whose, and which.
        argument: String,
        /// What iPXE would do with it.
        flaw: Flaw,
    },
    /// The whole line is too long.
    #[error(
        "the kernel line has {len} bytes, more than the {MAX_LEN} that every kernel takes; the longest is {longest}"
    )]
    TooLong {
        /// Its length.
        len: usize,
        /// The argument with the most bytes.
        longest: String,
    },
    /// The join arguments cannot be made.
    #[error("{0}")]
    Omni(String),
}

/// What iPXE would do to a word.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing stands there.
    #[error("is empty")]
    Empty,
    /// iPXE splits at blanks.
    #[error("has a blank in it, where iPXE would split it; make it two arguments")]
    Blank,
    /// A line break would end the command.
    #[error("has a control character in it")]
    Control,
    /// An operator.
    #[error("is an operator to iPXE, which would end the command there")]
    Operator,
    /// A comment.
    #[error("starts with `#`, where iPXE would end the command")]
    Comment,
    /// A setting.
    #[error("has `${{` in it, which iPXE would expand")]
    Expansion,
    /// A continued line.
    #[error("ends with `\\`, with which iPXE would join the next line")]
    Continuation,
}

impl Flaw {
    /// What iPXE would do to `word` as a word of its own, if it does not take it literally.
    pub fn of(word: &str) -> Option<Self> {
        // Most words are: nothing that follows can be said of them.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"|&;#$\\".contains(&byte);
        if !word.is_empty() && word.bytes().all(is_plain) {
            return None;
        }
        if word.is_empty() {
            Some(Self::Empty)
        } else if word.chars().any(|c| c.is_control()) {
            Some(Self::Control)
        } else if word.chars().any(char::is_whitespace) {
            Some(Self::Blank)
        } else if ["||", "&&", ";"].contains(&word) {
            Some(Self::Operator)
        } else if word.starts_with('#') {
            Some(Self::Comment)
        } else if word.contains("${") {
            Some(Self::Expansion)
        } else if word.ends_with('\\') {
            Some(Self::Continuation)
        } else {
            None
        }
    }
}

/// The kernel arguments for one boot, in their order: `initrd=`, Talos' own, Omni's three, the
/// image's, the profile's, the group's, the machine's, `ip=`. A later `console=` replaces Talos' own.
///
/// `initrd=` names each initrd, for EFI builds of iPXE before 2021-05 (Debian 12's is one); BIOS
/// and later builds do not mind it.
///
/// # Errors
/// Which argument cannot be served, and why. The message holds no secret.
pub fn kernel_line(
    profile: &Profile,
    image: &Image,
    who: &Who,
    shelf: &Shelf,
) -> Result<String, CmdlineError> {
    let arguments = arguments(profile, image, who, shelf)?;
    for argument in &arguments {
        if let Some(flaw) = Flaw::of(&argument.text) {
            return Err(CmdlineError::Argument { argument: argument.to_string(), flaw });
        }
    }
    let words: Vec<&str> = arguments.iter().map(|a| a.text.as_str()).collect();
    let line = words.join(" ");
    let len = KERNEL_NAME.len() + 1 + line.len();
    match arguments.iter().max_by_key(|a| a.text.len()) {
        Some(longest) if len > MAX_LEN => {
            Err(CmdlineError::TooLong { len, longest: shortened(longest) })
        }
        _ => Ok(line),
    }
}

/// Whether a kernel line as a script has it, with what its template adds, is short enough.
///
/// # Errors
/// It is not. The message has the name of the longest argument and not its value, which may be a secret.
pub fn fits(line: &str) -> Result<(), CmdlineError> {
    let len = KERNEL_NAME.len() + 1 + line.len();
    if len <= MAX_LEN {
        return Ok(());
    }
    let longest = line.split(' ').max_by_key(|word| word.len()).unwrap_or_default();
    let name: String = longest.split('=').next().unwrap_or_default().chars().take(100).collect();
    let longest = format!("`{name}=…` ({} bytes), with what its template adds", longest.len());
    Err(CmdlineError::TooLong { len, longest })
}

fn arguments<'a>(
    profile: &'a Profile,
    image: &'a Image,
    who: &'a Who,
    shelf: &Shelf,
) -> Result<Vec<Argument<'a>>, CmdlineError> {
    let of = |layer, owner: &'a str, texts: &[String]| {
        let make = move |text: &String| Argument { layer, owner, text: text.clone() };
        texts.iter().map(make).collect::<Vec<_>>()
    };
    let mut own = of(Layer::Image, &image.name, &image.cmdline);
    own.extend(of(Layer::Profile, &profile.name, &profile.settings.cmdline));
    if let Some(group) = &who.group {
        own.extend(of(Layer::Group, &group.name, &group.settings.cmdline));
    }
    if let Some(machine) = &who.machine {
        own.extend(of(Layer::Machine, &machine.name, &machine.settings.cmdline));
        let ip: Vec<String> = ip(&machine.network).into_iter().collect();
        own.extend(of(Layer::Machine, &machine.name, &ip));
    }

    let initrds: Vec<String> =
        (0..image.initrds()).map(|index| format!("initrd={}", initrd_name(index))).collect();
    let mut line = of(Layer::Initrd, &image.name, &initrds);
    if profile.adds_talos_arguments() {
        let replaced = own.iter().any(|a| a.text.starts_with("console="));
        let base: Vec<String> = base(image, shelf)
            .into_iter()
            .filter(|argument| !(replaced && argument.starts_with("console=")))
            .collect();
        line.extend(of(Layer::Base, &image.name, &base));
    }
    if let Some(omni) = &profile.omni {
        let join = omni.arguments().map_err(CmdlineError::Omni)?;
        line.extend(of(Layer::Omni, &omni.name, &join));
    }
    if profile.adds_talos_arguments() {
        line.extend(of(Layer::Profile, &profile.name, &talos_settings(profile, who)));
    }
    line.extend(own);
    Ok(line)
}

/// Talos' own arguments: as the image's factory has them, else as its release is known to have them.
fn base(image: &Image, shelf: &Shelf) -> Vec<String> {
    let set = shelf.kernel_set(image);
    if let Some(base) = set.and_then(|set| set.base.clone()) {
        return base;
    }
    let talos = image.talos.as_ref();
    let told = talos.and_then(|talos| talos.version).or_else(|| set.and_then(|set| set.talos));
    let version = told.unwrap_or(TalosVersion::NEWEST);
    let arch = talos.map(|talos| talos.arch).unwrap_or_default();
    version.default_cmdline(arch).into_iter().map(str::to_owned).collect()
}

/// What `talos` says in a machine, its group and its profile.
fn talos_settings(profile: &Profile, who: &Who) -> Vec<String> {
    let mut arguments = Vec::new();
    if who.settings(Some(profile)).find_map(|said| said.halt_if_installed) == Some(true) {
        arguments.push("talos.halt_if_installed=1".to_owned());
    }
    let labels: BTreeMap<&String, &String> =
        who.settings(Some(profile)).rev().flat_map(|said| &said.labels).collect();
    if !labels.is_empty() {
        arguments.push(talos::labels(&labels));
    }
    arguments
}

/// `ip=<client>::<gateway>:<netmask>:<hostname>:<device>:off:<dns0>:<dns1>` (Linux
/// `Documentation/admin-guide/nfs/nfsroot.rst`); the server address stays empty.
fn ip(network: &Network) -> Option<String> {
    let Network { ip, gateway, nic, hostname, dns } = network;
    let ip = (*ip)?;
    let gateway = gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    let [hostname, nic] = [hostname, nic].map(|text| text.as_deref().unwrap_or_default());
    let dns: String = dns.iter().map(|server| format!(":{server}")).collect();
    Some(format!("ip={}::{gateway}:{}:{hostname}:{nic}:off{dns}", ip.addr(), ip.netmask()))
}

/// An argument as an operator can find it again, without a line of it filling the screen.
fn shortened(argument: &Argument<'_>) -> String {
    let text = argument.to_string();
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], argument.text.len()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::catalog::{Files, Group, Machine, Part, Talos};
    use super::super::omni::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG, Omni};
    use super::super::pattern::Pattern;
    use super::super::settings::Settings;
    use super::super::talos::TalosArch;
    use super::*;

    fn image(cmdline: &[&str], talos: Option<&str>) -> Image {
        Image {
            name: "rack".into(),
            files: Files {
                kernel: Part::Own("/srv/vmlinuz".into()),
                initrds: ["/srv/initramfs.xz", "/srv/more.xz"].map(|p| Part::Own(p.into())).into(),
            },
            missing: None,
            cmdline: cmdline.iter().map(ToString::to_string).collect(),
            talos: talos.map(|v| Talos {
                release: v.to_owned(),
                version: Some(v.parse().unwrap()),
                arch: TalosArch::Amd64,
                extensions: None,
            }),
        }
    }

    fn settings(cmdline: &[&str]) -> Settings {
        let cmdline = cmdline.iter().map(ToString::to_string).collect();
        Settings { cmdline, ..Settings::default() }
    }

    fn profile(script: &str, cmdline: &[&str]) -> Profile {
        Profile {
            name: "blade".into(),
            script: script.into(),
            image: None,
            omni: None,
            settings: settings(cmdline),
        }
    }

    fn machine(profile: Profile, cmdline: &[&str]) -> Machine {
        Machine {
            name: "oden".into(),
            macs: vec![],
            uuid: None,
            serial: None,
            profile: Some(Arc::new(profile)),
            network: Network::default(),
            settings: settings(cmdline),
        }
    }

    /// The line of who has only a profile.
    fn kernel_line(profile: &Profile, image: &Image) -> Result<String, CmdlineError> {
        super::kernel_line(profile, image, &Who::default(), &Shelf::default())
    }

    fn omni(token: Result<&str, &str>) -> Option<Arc<Omni>> {
        Some(Arc::new(Omni {
            name: "homelab".into(),
            api: "https://x.omni.siderolabs.io".into(),
            join_token: token.map(Into::into).map_err(Into::into),
            tunnel: false,
            events: DEFAULT_EVENTS.into(),
            kernel_log: DEFAULT_KERNEL_LOG.into(),
        }))
    }

    #[test]
    fn the_order_is_talos_then_omni_then_image_profile_group_machine_and_its_address() {
        let profile = Profile { omni: omni(Ok("abcd")), ..profile("talos", &["intel_iommu=off"]) };
        let network = Network {
            ip: "192.168.1.171/24".parse().ok(),
            gateway: "192.168.1.1".parse().ok(),
            nic: Some("eth0".into()),
            ..Network::default()
        };
        let machine = machine(self::profile("talos", &[]), &["talos.hostname=oden"]);
        let machine = Some(Arc::new(Machine { network, ..machine }));
        let group = Some(Arc::new(Group {
            name: "asgard".into(),
            pattern: Pattern::default(),
            profile: Arc::new(self::profile("talos", &[])),
            settings: Settings {
                halt_if_installed: Some(true),
                labels: [("rack".into(), "r1".into())].into(),
                ..settings(&["iommu=off"])
            },
        }));
        let image = image(&["panic=10"], Some("v1.14.0"));
        assert_eq!(
            super::kernel_line(&profile, &image, &Who { machine, group }, &Shelf::default())
                .unwrap(),
            "initrd=initrd initrd=initrd.1 talos.platform=metal console=tty0 slab_nomerge pti=on \
             consoleblank=0 printk.devkmsg=on selinux=1 module.sig_enforce=1 \
             proc_mem.force_override=never \
             siderolink.api=https://x.omni.siderolabs.io?jointoken=abcd \
             talos.events.sink=[fdae:41e4:649b:9303::1]:8090 \
             talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092 \
             talos.halt_if_installed=1 \
             talos.environment=INSTALLER_META_BASE64=MHhjPW1hY2hpbmVMYWJlbHM6CiAgICByYWNrOiByMQo= \
             panic=10 intel_iommu=off iommu=off talos.hostname=oden \
             ip=192.168.1.171::192.168.1.1:255.255.255.0::eth0:off"
        );
    }

    /// Linux Documentation/admin-guide/nfs/nfsroot.rst.
    #[test]
    fn an_address_has_what_is_known_of_its_network_and_two_name_servers() {
        let ip = |network: Network| ip(&network);
        assert_eq!(ip(Network { nic: Some("eth0".into()), ..Network::default() }), None);
        let bare = Network { ip: "10.0.0.7/8".parse().ok(), ..Network::default() };
        assert_eq!(ip(bare.clone()).as_deref(), Some("ip=10.0.0.7:::255.0.0.0:::off"));
        let full = Network {
            hostname: Some("oden".into()),
            dns: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
            ..bare
        };
        let line = "ip=10.0.0.7:::255.0.0.0:oden::off:10.0.0.1:10.0.0.2";
        assert_eq!(ip(full).as_deref(), Some(line));
    }

    #[test]
    fn without_a_version_the_newest_talos_is_meant() {
        let image = |version| image(&[], version);
        assert_eq!(
            kernel_line(&profile("talos", &[]), &image(None)),
            kernel_line(&profile("talos", &[]), &image(Some("v1.14.0"))),
        );
    }

    #[test]
    fn only_the_talos_script_gets_talos_arguments() {
        let line = kernel_line(&profile("linux", &["quiet"]), &image(&[], None));
        assert_eq!(line.unwrap(), "initrd=initrd initrd=initrd.1 quiet");
    }

    #[test]
    fn a_later_console_replaces_that_of_the_base() {
        let line = kernel_line(
            &profile("talos", &["console=ttyS1,115200n8", "console=tty1"]),
            &image(&[], Some("v1.7.0")),
        )
        .unwrap();
        let consoles: Vec<_> = line.split(' ').filter(|w| w.starts_with("console=")).collect();
        assert_eq!(consoles, ["console=ttyS1,115200n8", "console=tty1"]);
    }

    #[test]
    fn words_that_ipxe_would_cut_or_expand_are_refused_by_name() {
        let table = [
            ("||", "is an operator to iPXE, which would end the command there"),
            ("&&", "is an operator to iPXE, which would end the command there"),
            (";", "is an operator to iPXE, which would end the command there"),
            ("#x", "starts with `#`, where iPXE would end the command"),
            ("a=${uuid}", "has `${` in it, which iPXE would expand"),
            ("a b", "has a blank in it, where iPXE would split it; make it two arguments"),
            ("a\nb", "has a control character in it"),
            ("", "is empty"),
            ("a\\", "ends with `\\`, with which iPXE would join the next line"),
        ];
        for (word, flaw) in table {
            let error = kernel_line(&profile("linux", &["quiet", word]), &image(&[], None));
            assert_eq!(
                error.unwrap_err().to_string(),
                format!("argument `{word}` of profile `blade` {flaw}"),
            );
        }
    }

    #[test]
    fn within_a_word_the_same_characters_are_harmless() {
        let words = ["a=b||c", "x&&y", "k=a;b", "c=d#e", "p=$HOME", "q={x}", r"r=\d+"];
        let line = kernel_line(&profile("linux", &words), &image(&[], None)).unwrap();
        assert!(line.ends_with(&words.join(" ")), "{line}");
    }

    #[test]
    fn a_line_at_the_limit_is_served_and_one_byte_more_is_refused() {
        let fixed = "kernel initrd=initrd initrd=initrd.1 quiet ".len();
        let line = |len: usize| {
            let long = "x".repeat(len - fixed);
            kernel_line(&profile("linux", &["quiet", &long]), &image(&[], None))
        };
        assert_eq!(line(MAX_LEN).map(|l| l.len()), Ok(MAX_LEN - "kernel ".len()));
        let error = line(MAX_LEN + 1).unwrap_err().to_string();
        assert!(error.starts_with("the kernel line has 2041 bytes"), "{error}");
        assert!(error.contains("argument `xxxx"), "{error}");
        assert!(error.contains("(1998 bytes)"), "{error}");
    }

    #[test]
    fn a_token_never_shows_in_a_refusal() {
        let joins = omni(Ok(&"hush".repeat(600)));
        let profile = Profile { omni: joins, ..self::profile("talos", &[]) };
        let error = kernel_line(&profile, &image(&[], None)).unwrap_err().to_string();
        assert!(error.contains("`siderolink.api=***` of omni `homelab`"), "{error}");
        assert!(!error.contains("hush"), "{error}");

        let pasted = self::profile("linux", &["siderolink.api=x?jointoken=hush panic=1"]);
        let error = kernel_line(&pasted, &image(&[], None)).unwrap_err().to_string();
        assert!(error.contains("`siderolink.api=x?jointoken=*** panic=1`"), "{error}");
    }

    #[test]
    fn a_missing_token_is_the_reason() {
        let profile = Profile { omni: omni(Err("no join token")), ..profile("talos", &[]) };
        let error = kernel_line(&profile, &image(&[], None)).unwrap_err();
        assert_eq!(error.to_string(), "no join token");
    }
}
