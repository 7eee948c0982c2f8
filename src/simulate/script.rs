//! Runs an iPXE script as far as it can be seen from outside: every command is taken to go well, nobody
//! touches a key, and what is fetched is told to who has the sockets.
//!
//! The language is iPXE's (its `core/exec.c` and `image/script.c`): a line is commands with `||`, `&&`
//! and `;` between them, `${…}` is expanded word by word, and the script ends with the first line that
//! fails.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, VecDeque};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::machine::Machine;
use crate::pure::boot::urls;

/// How many commands a script may run: an endless loop ends there.
const MOST_COMMANDS: u32 = 10_000;
/// How long a setting's value may be, and how many of them a word: values that hold each other would
/// grow for ever.
const LONGEST_VALUE: usize = 4096;
const MOST_VALUES: usize = 100;

/// What iPXE's `uristring` leaves as it is.
const URI: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a script does that is seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It fetches what it is going to start.
    Kernel {
        /// From where, as it stands there.
        url: String,
        /// The kernel line. It may hold a join token.
        cmdline: String,
    },
    /// It fetches an initrd, or another file.
    Initrd {
        /// From where, as it stands there.
        url: String,
    },
    /// It goes over to another script or program.
    Chain {
        /// From where, as it stands there.
        url: String,
        /// Whether it waited before: then it asks again for something that may have been mended.
        has_waited: bool,
    },
    /// It ends.
    End(End),
}

/// How a script ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It starts what it fetched.
    Boots,
    /// It shows a menu.
    Menu {
        /// Its title.
        title: String,
        /// What can be chosen: labels.
        items: Vec<String>,
        /// What is chosen when the time is over.
        default: Option<String>,
    },
    /// It starts a disk: this drive or URL.
    Disk(String),
    /// It leaves the machine to its firmware, which goes on with its boot order.
    Firmware,
    /// It opens a shell, or waits for a key.
    Waits,
    /// It switches the machine off, or starts it anew.
    Power(&'static str),
    /// It goes on and on.
    Endless,
    /// It jumps to a label that it does not have.
    NoLabel(String),
}

/// A script on its way.
#[derive(Clone, Debug)]
pub struct Run {
    lines: Vec<String>,
    line: usize,
    commands: u32,
    settings: BTreeMap<String, String>,
    has_waited: bool,
    has_prompted: bool,
    title: String,
    items: Vec<String>,
    default: Option<String>,
    has_kernel: bool,
    echoed: Vec<String>,
    /// What was done and is not told yet.
    done: VecDeque<Deed>,
}

/// Whether a command went well, or where the script goes on instead.
enum Ran {
    Well,
    Badly,
    Jump(String),
    Ends(Deed),
}

impl Run {
    /// Begins the script `text`, as this machine; `None` where iPXE takes it for no script.
    pub fn new(text: &str, machine: &Machine) -> Option<Self> {
        // A daemon shows what it would give, behind a line that says so.
        let text = match text.split_once('\n') {
            Some((head, shown)) if head.starts_with("# reveille: ") => shown,
            Some(_) | None => text,
        };
        let is_script = text.starts_with("#!ipxe") || text.starts_with("#!gpxe");
        is_script.then(|| Self {
            lines: text.lines().map(str::to_owned).collect(),
            line: 0,
            commands: 0,
            settings: settings(machine),
            has_waited: false,
            has_prompted: false,
            title: String::new(),
            items: Vec::new(),
            default: None,
            has_kernel: false,
            echoed: Vec::new(),
            done: VecDeque::new(),
        })
    }

    /// Goes on to what is seen next. After an end there is nothing more.
    pub fn go_on(&mut self) -> Deed {
        loop {
            if let Some(deed) = self.done.pop_front() {
                return deed;
            }
            let Some(line) = self.lines.get(self.line).cloned() else {
                // At its end iPXE starts what was fetched to be started.
                return Deed::End(if self.has_kernel { End::Boots } else { End::Firmware });
            };
            self.line += 1;
            match self.run_line(&line) {
                Ran::Well => {}
                Ran::Badly => self.done.push_back(Deed::End(End::Firmware)),
                Ran::Ends(deed) => self.done.push_back(deed),
                Ran::Jump(label) => {
                    let stands = |line: &String| line.trim().strip_prefix(':') == Some(&label);
                    match self.lines.iter().position(stands) {
                        Some(line) => self.line = line,
                        None => self.done.push_back(Deed::End(End::NoLabel(label))),
                    }
                }
            }
            if self.commands > MOST_COMMANDS {
                self.done.push_back(Deed::End(End::Endless));
            }
        }
    }

    /// What it wrote on the console so far, without empty lines.
    pub fn echoed(&self) -> &[String] {
        &self.echoed
    }

    /// Whether it has waited for a key, which nobody pressed.
    pub fn has_prompted(&self) -> bool {
        self.has_prompted
    }

    fn run_line(&mut self, line: &str) -> Ran {
        let mut ran = Ran::Well;
        let mut runs = true;
        let mut command = Vec::new();
        for word in line.split_whitespace().chain([";"]) {
            if command.is_empty() && (word.starts_with('#') || word.starts_with(':')) {
                break;
            }
            if !matches!(word, "||" | "&&" | ";") {
                command.push(word);
                continue;
            }
            if runs && !command.is_empty() {
                self.commands += 1;
                ran = self.run_command(&command);
                if matches!(ran, Ran::Jump(_) | Ran::Ends(_)) {
                    return ran;
                }
            }
            command.clear();
            runs = match word {
                "||" => matches!(ran, Ran::Badly),
                "&&" => matches!(ran, Ran::Well),
                _ => true,
            };
            // `sleep 5 ||` at the end of a line: nothing runs, and that goes well.
            if word == "||" && runs {
                ran = Ran::Well;
            }
        }
        ran
    }

    fn run_command(&mut self, words: &[&str]) -> Ran {
        let words: Vec<String> = words.iter().map(|word| self.expanded(word)).collect();
        let (name, arguments) = words.split_first().expect("no command is without a word");
        let (options, rest) = taken_apart(name, arguments);
        let option = |names: &[&str]| {
            let is_it = |(name, _): &&(String, String)| names.contains(&name.as_str());
            options.iter().find(is_it).map(|(_, value)| value.clone())
        };
        let first = rest.first().cloned().unwrap_or_default();
        match name.as_str() {
            "goto" => Ran::Jump(first),
            "echo" => {
                let text = rest.join(" ");
                self.echoed.extend((!text.trim().is_empty()).then_some(text));
                Ran::Well
            }
            "sleep" => {
                self.has_waited = true;
                Ran::Well
            }
            "set" => {
                let mut value = rest[1.min(rest.len())..].join(" ");
                value.truncate(value.floor_char_boundary(LONGEST_VALUE));
                self.settings.insert(bare(&first).to_owned(), value);
                Ran::Well
            }
            "clear" => {
                self.settings.remove(bare(&first));
                Ran::Well
            }
            // It plays a machine of today: its CPU has whatever is asked for.
            "cpuid" => went(first.parse().is_ok_and(|bit: u32| bit < 32)),
            "isset" => went(!first.is_empty()),
            "iseq" => went(rest.first() == rest.get(1)),
            "kernel" | "imgselect" | "imgload" => {
                self.has_kernel = true;
                let cmdline = rest[1.min(rest.len())..].join(" ");
                self.done.push_back(Deed::Kernel { url: first, cmdline });
                Ran::Well
            }
            "initrd" | "imgfetch" | "module" => {
                self.done.push_back(Deed::Initrd { url: first });
                Ran::Well
            }
            "chain" | "imgexec" | "boot" if !first.is_empty() => {
                Ran::Ends(Deed::Chain { url: first, has_waited: self.has_waited })
            }
            "boot" | "imgexec" if self.has_kernel => ends(End::Boots),
            "boot" | "imgexec" => Ran::Badly,
            "exit" => ends(End::Firmware),
            "shell" | "login" | "config" => ends(End::Waits),
            "prompt" => {
                self.has_prompted = true;
                match option(&["--timeout", "-t"]) {
                    Some(_) => Ran::Badly,
                    None => ends(End::Waits),
                }
            }
            "menu" => {
                (self.title, self.items, self.default) = (rest.join(" "), Vec::new(), None);
                Ran::Well
            }
            "item" => {
                let is_gap = option(&["--gap", "-g"]).is_some();
                if option(&["--default", "-d"]).is_some() {
                    self.default = Some(first.clone());
                }
                self.items.extend((!is_gap && !first.is_empty()).then_some(first));
                Ran::Well
            }
            "choose" => {
                let waits = option(&["--timeout", "-t"]).is_some();
                let default = option(&["--default", "-d"]).or(self.default.take());
                let default = default.or_else(|| self.items.first().cloned()).filter(|_| waits);
                let (title, items) = (self.title.clone(), self.items.clone());
                ends(End::Menu { title, items, default })
            }
            "sanboot" => ends(End::Disk(option(&["--drive", "-d"]).unwrap_or(first))),
            "reboot" => ends(End::Power("starts anew")),
            "poweroff" => ends(End::Power("switches itself off")),
            // What has to do with the network, the screen and images goes well.
            _ => Ran::Well,
        }
    }

    /// `${name}`, `${net0/name}` and `${name:type}`, all of them in a word.
    fn expanded(&self, word: &str) -> String {
        let mut text = word.to_owned();
        for _ in 0..MOST_VALUES {
            // The innermost first, as iPXE does; what does not end is left as it is.
            let Some(start) = text.rfind("${") else { break };
            let Some(len) = text[start..].find('}') else { break };
            let value = self.value(&text[start + 2..start + len]);
            text.replace_range(start..=start + len, &value);
        }
        text
    }

    fn value(&self, setting: &str) -> String {
        let (name, kind) = setting.split_once(':').unwrap_or((setting, ""));
        let value = self.settings.get(bare(name)).cloned().unwrap_or_default();
        match kind {
            "uristring" => utf8_percent_encode(&value, URI).to_string(),
            // A MAC address is six bytes, a bus ID five, and all else a text.
            "hexhyp" if ["mac", "busid"].iter().any(|of| bare(name).ends_with(of)) => {
                value.replace(':', "-")
            }
            "hexhyp" => urls::hex(&value),
            "hexraw" => value.replace(':', ""),
            _ => value,
        }
    }
}

fn ends(end: End) -> Ran {
    Ran::Ends(Deed::End(end))
}

fn went(well: bool) -> Ran {
    if well { Ran::Well } else { Ran::Badly }
}

/// A setting's name without where it stands: `net0/mac` is `mac`.
fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name).split(':').next().unwrap_or(name)
}

/// Whether an option of this command is followed by its value.
fn has_value(command: &str, option: &str) -> bool {
    match option {
        "--name" | "-n" => command != "echo",
        "--timeout" | "-t" | "--key" | "-k" | "--menu" | "-m" | "--drive" | "--filename" | "-f" => {
            true
        }
        // For `item` it is a flag.
        "--default" => command == "choose",
        "-d" => matches!(command, "choose" | "sanboot"),
        _ => false,
    }
}

/// Options, with their values, and the rest. Behind the first word that is no option there are none:
/// that is the kernel line.
fn taken_apart<'a>(
    command: &str,
    arguments: &'a [String],
) -> (Vec<(String, String)>, &'a [String]) {
    let mut options = Vec::new();
    let mut rest = arguments;
    while let [option, more @ ..] = rest
        && option.starts_with('-')
        && option.len() > 1
    {
        rest = more;
        if option == "--" {
            break;
        }
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (value, rest) {
            ("", [next, more @ ..]) if has_value(command, name) => {
                options.push((name.to_owned(), next.clone()));
                rest = more;
            }
            _ => options.push((name.to_owned(), value.to_owned())),
        }
    }
    (options, rest)
}

/// What iPXE knows of the machine.
fn settings(machine: &Machine) -> BTreeMap<String, String> {
    let smbios = &machine.smbios;
    let uuid = smbios.uuid.map(|uuid| uuid.to_string());
    let platform = machine.firmware.platform();
    let settings = [
        ("mac", Some(machine.mac.to_string())),
        ("uuid", uuid),
        ("serial", smbios.serial.clone()),
        ("product", smbios.product.clone()),
        ("manufacturer", smbios.vendor.clone()),
        ("platform", Some(platform.to_owned())),
        ("buildarch", Some(machine.firmware.buildarch().to_owned())),
        ("busid", machine.nic.map(|nic| nic.busid().replace('-', ":"))),
        ("version", Some(VERSION.to_owned())),
    ];
    let set = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?));
    settings.into_iter().filter_map(set).collect()
}

/// The iPXE that is played.
pub const VERSION: &str = "1.21.1";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::pure::client::Mac;
    use crate::pure::script::render::render_autoexec;
    use crate::pure::script::templates::Templates;
    use crate::simulate::machine::{Firmware, Smbios};

    fn machine() -> Machine {
        let smbios = Smbios { serial: Some("CZ 1&2".into()), ..Smbios::default() };
        let nic = "14e4:1639".parse().ok();
        Machine { mac: Mac::new([2, 0, 0, 0, 0, 0x0a]), firmware: Firmware::Uefi, smbios, nic }
    }

    /// Everything that the script does, and what it wrote.
    fn run(text: &str) -> (Vec<Deed>, Vec<String>) {
        let mut run = Run::new(text, &machine()).expect("it is a script");
        let mut deeds = Vec::new();
        loop {
            deeds.push(run.go_on());
            if matches!(deeds.last(), Some(Deed::End(_) | Deed::Chain { .. })) {
                return (deeds, run.echoed().to_vec());
            }
        }
    }

    fn end(lines: &str) -> Deed {
        run(&format!("#!ipxe\n{lines}")).0.pop().expect("it does something")
    }

    fn chain(url: &str) -> Deed {
        Deed::Chain { url: url.into(), has_waited: false }
    }

    #[test]
    fn a_boot_is_its_kernel_its_initrds_and_its_end() {
        let script = "#!ipxe\n\necho boots\nimgfree\n:kernel\n\
            kernel --name kernel http://x/k?mac=1 initrd=initrd --x quiet || goto failed\n\
            :initrd0\ninitrd --name initrd http://x/i || goto failed\n\
            boot || goto failed\n:failed\nsleep 10 || goto shell\ngoto kernel\n:shell\nshell\n";
        let kernel = Deed::Kernel {
            url: "http://x/k?mac=1".into(),
            cmdline: "initrd=initrd --x quiet".into(),
        };
        let initrd = Deed::Initrd { url: "http://x/i".into() };
        let (deeds, echoed) = run(script);
        assert_eq!(deeds, [kernel, initrd, Deed::End(End::Boots)]);
        assert_eq!(echoed, ["boots"]);
    }

    #[test]
    fn the_built_in_templates_lead_on() {
        let autoexec = render_autoexec(&Templates::default(), "http://10.0.0.2:8080").unwrap();
        let url = "http://10.0.0.2:8080/boot/02-00-00-00-00-0a.ipxe";
        assert_eq!(run(&autoexec).0, [chain(url)]);
        let source = |name: &str| {
            let source =
                crate::pure::script::templates::BUILT_IN.iter().find(|(known, _)| *known == name);
            source.expect("it is built in").1
        };
        let asks = source("ask-facts").replace("{{ script_url }}", "http://x/b?mac=1");
        assert_eq!(
            run(&asks).0,
            [chain(
                "http://x/b?mac=1&uuid=&serial_hex=43-5a-20-31-26-32&product_hex=&vendor_hex=&platform=efi&arch=x86_64&cpu=x64&v2=yes&nic=01-14-e4-16-39"
            )]
        );
        let disk = source("local-disk").replace("{% if", "#").replace("{% endif", "#");
        assert_eq!(run(&disk).0, [Deed::End(End::Disk("0x80".into()))]);
        let is_of_sanboot = |line: &&str| line.starts_with("sanboot") || line.starts_with("chain");
        let exits = disk.lines().filter(|line| !is_of_sanboot(line)).collect::<Vec<_>>();
        assert_eq!(run(&exits.join("\n")).0, [Deed::End(End::Firmware)]);
        let refused = source("refused").replace("{{ script_url }}", "http://x/b");
        let asks_again = Deed::Chain { url: "http://x/b".into(), has_waited: true };
        assert_eq!(run(&refused).0, [asks_again]);
    }

    #[test]
    fn a_menu_is_its_items_and_what_is_chosen_when_the_time_is_over() {
        let items = "menu What now?\nitem --gap -- Choose\nitem --key t a Talos\nitem b Debian\n";
        let menu = |choose: &str| end(&format!("{items}{choose}"));
        let with = |default: Option<&str>| {
            Deed::End(End::Menu {
                title: "What now?".into(),
                items: vec!["a".into(), "b".into()],
                default: default.map(str::to_owned),
            })
        };
        assert_eq!(menu("choose --default b --timeout 5000 chosen || goto x"), with(Some("b")));
        assert_eq!(menu("choose --timeout 5000 chosen"), with(Some("a")));
        assert_eq!(menu("choose --default b chosen"), with(None));
    }

    #[test]
    fn lines_run_as_ipxe_runs_them() {
        for (lines, expected) in [
            ("iseq ${platform} efi && exit 1 ||\nshell", Deed::End(End::Firmware)),
            ("iseq ${platform} pcbios && exit 1 ||\nshell", Deed::End(End::Waits)),
            ("iseq a b\nchain http://x", Deed::End(End::Firmware)),
            ("isset ${asset} || chain http://x", chain("http://x")),
            (
                "set a/b 1 ; iseq ${b} 1 && chain http://x/${net0/mac:hexhyp}/${nothing}y",
                chain("http://x/02-00-00-00-00-0a/y"),
            ),
            ("goto nowhere", Deed::End(End::NoLabel("nowhere".into()))),
            (":a\ngoto a", Deed::End(End::Endless)),
            ("prompt --timeout 3000 Press a key && shell ||\nexit", Deed::End(End::Firmware)),
            ("prompt Press a key", Deed::End(End::Waits)),
            ("set a ${a}x${b}\nset b {a}\nchain http://$${b}", chain("http://x")),
            (
                "cpuid --ecx 13 && cpuid --ecx 23 && goto fits || goto old\n:old\nshell\n:fits\nchain http://x",
                chain("http://x"),
            ),
            ("cpuid --ecx x || chain http://x", chain("http://x")),
            ("# chain http://x\nreboot", Deed::End(End::Power("starts anew"))),
            ("boot || shell", Deed::End(End::Waits)),
            ("sanboot --drive 0x81", Deed::End(End::Disk("0x81".into()))),
            ("", Deed::End(End::Firmware)),
        ] {
            assert_eq!(end(lines), expected, "{lines}");
        }
        assert!(Run::new("<html>", &machine()).is_none());
    }

    #[test]
    fn values_that_hold_themselves_have_an_end() {
        let lines = ":a\nset a ${a}${a}${a}xxxxxxxx\ngoto a";
        assert_eq!(end(lines), Deed::End(End::Endless));
        assert!(matches!(end("set a {a}\nchain http://$${a}"), Deed::Chain { .. }));
    }

    #[test]
    fn every_built_in_template_is_known_here() {
        let sources: BTreeMap<_, _> =
            crate::pure::script::templates::BUILT_IN.iter().copied().collect();
        for (name, source) in sources {
            // As it stands: what is between braces is a word like others.
            if source.starts_with("#!ipxe") {
                assert!(!matches!(end(source), Deed::End(End::NoLabel(_))), "{name}");
            }
        }
    }
}
