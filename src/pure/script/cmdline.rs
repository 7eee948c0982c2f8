//! The kernel line, put together from everyone who has a say in it.
//!
//! iPXE has no quoting: it splits a line at blanks, takes a whole word `||`, `&&` or `;` and a word
//! that starts with `#` for the end of the command (`core/exec.c`), and expands every `${…}`, the
//! result again (`core/settings.c`). On BIOS a line over the kernel's own limit is cut without a
//! word (`arch/x86/image/bzimage.c`). None of this can be escaped, so it is refused here, by name,
//! before a machine boots half a line.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use self::layers::{Argument, Layer, knows_base, said};
use self::settle::{Settled, settle};
use crate::pure::catalog::image_set::KERNEL_NAME;
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::{Image, Profile};

mod layers;
mod settle;

pub use crate::pure::catalog::ipxe_word::Flaw;

/// The longest kernel line that every kernel takes whole: `COMMAND_LINE_SIZE` on x86 is 2048 with
/// its NUL, and iPXE adds a name or two of its own.
pub const MAX_LEN: usize = 2040;

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
    /// What came from a factory as Talos' own arguments is none of that.
    #[error(
        "what image {image} has as Talos' own kernel arguments cannot be that: {wrong}; `reveille pull --update {image}` fetches it anew"
    )]
    Base {
        /// The image.
        image: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// The join arguments cannot be made.
    #[error("{0}")]
    Omni(String),
}

/// The kernel arguments for one boot, in their order: `initrd=`, Talos' own, Omni's three, the
/// image's, those of `talos`, the profile's, the group's, the machine's, `ip=`.
///
/// None stands twice. The same text stands once, where it was said last. Of one name a later layer
/// takes the place of all that earlier ones said, and stands where it is said; several of one name in one
/// layer stand beside each other, since `console=tty0 console=ttyS1` means both. A few names add up
/// whoever says them, as `memmap` and the variables of `talos.environment`. So `ip=`, made of a
/// machine's `ip`, comes before any other that is said for it.
///
/// `-name` in an image, a profile, a group or a machine takes away what was said of that name before it,
/// `-name=value` that one only; neither ever reaches the kernel. All but `initrd=` can be taken away.
/// Arguments of `init` behind a `--` cannot begin with `-` for that reason.
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
    let Settled { line: arguments, idle: _ } = settle(said(profile, image, who, shelf)?);
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

/// What of the last entry that is meant, the machine, else the group, else the profile with its image, shall
/// take something off the kernel line and finds nothing: `argument `-quiet` of machine `oden``. Nothing is
/// said where Talos' own arguments are not known yet.
pub fn idle_removals(profile: &Profile, image: &Image, who: &Who, shelf: &Shelf) -> Vec<String> {
    let meant = |layer: Layer| match layer {
        Layer::Machine => who.machine.is_some(),
        Layer::Group => who.machine.is_none() && who.group.is_some(),
        Layer::Profile | Layer::Image => who.machine.is_none() && who.group.is_none(),
        Layer::Initrd | Layer::Base | Layer::Omni | Layer::Talos | Layer::Address => false,
    };
    if !knows_base(profile, image, shelf) {
        return Vec::new();
    }
    let idle = said(profile, image, who, shelf).map(|said| settle(said).idle);
    let idle = idle.unwrap_or_default().into_iter().filter(|argument| meant(argument.layer));
    idle.map(|argument| shortened(&argument)).collect()
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

    use super::*;
    use crate::pure::catalog::image_set::SetId;
    use crate::pure::catalog::image_status::{Set, Standing};
    use crate::pure::catalog::omni::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG, Omni};
    use crate::pure::catalog::pattern::Pattern;
    use crate::pure::catalog::settings::Settings;
    use crate::pure::catalog::talos::TalosArch;
    use crate::pure::catalog::{Files, Group, Machine, Network, Part, Talos};

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
            has_own_script: false,
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
             panic=10 talos.halt_if_installed=1 \
             talos.environment=INSTALLER_META_BASE64=MHhjPW1hY2hpbmVMYWJlbHM6CiAgICByYWNrOiByMQo= \
             intel_iommu=off iommu=off talos.hostname=oden \
             ip=192.168.1.171::192.168.1.1:255.255.255.0::eth0:off"
        );
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
    #[test]
    fn what_a_factory_has_is_the_base_and_what_it_cannot_have_is_refused() {
        let set = SetId::new("set");
        let image = Image {
            files: Files { kernel: Part::Fetched(set.clone(), "kernel"), initrds: vec![] },
            ..image(&[], Some("v1.11.2"))
        };
        let with = |base: Option<&str>| {
            let base = base.map(|base| base.split_whitespace().map(str::to_owned).collect());
            let here = Set { folder: "/x".into(), mark: "m".into(), base, talos: None };
            let shelf = Shelf { sets: [(set.clone(), Standing::Here(here))].into() };
            let profile = profile("talos", &["-x", "quiet"]);
            super::kernel_line(&profile, &image, &Who::default(), &shelf)
        };
        assert_eq!(with(Some("talos.platform=metal x y")).unwrap(), "talos.platform=metal y quiet");
        assert!(
            with(None).unwrap().starts_with("talos.platform=metal console=tty0 init_on_alloc=1")
        );
        for (base, wrong) in [
            ("", "it says no `talos.platform`, and nobody else does"),
            (
                "<html> <body>502</body> </html>",
                "it says no `talos.platform`, and nobody else does",
            ),
            (
                "talos.platform=metal ;",
                "in it `;` is an operator to iPXE, which would end the command there",
            ),
        ] {
            let error = with(Some(base)).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "what image rack has as Talos' own kernel arguments cannot be that: {wrong}; `reveille pull --update rack` fetches it anew"
                )
            );
        }
    }

    #[test]
    fn what_shall_take_something_away_and_finds_nothing_is_told_of_the_entry_that_says_it() {
        let profile = profile("talos", &["-pti", "-quiet"]);
        let machine = machine(self::profile("talos", &[]), &["-nosmt", "-slab_nomerge"]);
        let image = |version| image(&["-panic=1"], version);
        let of = |image: &Image, machine: Option<&Machine>| {
            let machine = machine.map(|machine| {
                let settings = machine.settings.clone();
                Arc::new(Machine { settings, ..self::machine(self::profile("talos", &[]), &[]) })
            });
            idle_removals(&profile, image, &Who { machine, group: None }, &Shelf::default())
        };
        let known = image(Some("v1.11.2"));
        assert_eq!(
            of(&known, None),
            ["argument `-panic=1` of image `rack`", "argument `-quiet` of profile `blade`"]
        );
        assert_eq!(of(&known, Some(&machine)), ["argument `-nosmt` of machine `oden`"]);
        assert!(of(&image(None), None).is_empty(), "its release may have it");
    }
}
