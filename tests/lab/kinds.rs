//! All that a neighbour can do in a machine's name, at each stage of its way, for each kind of machine.
//!
//! Each test boots one kind of machine four times: it installs, boots its disk, installs by an order, and boots
//! its disk. Before, between and after its steps the neighbour sends every forged request that he has. After each
//! of these rounds `reveille machine` reports what it reported before, and he has received no secret and no id.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::{Map, Value};

use crate::in_lab;
use crate::machines::{done, machine as reported};
use crate::support::appliance::Folder;
use crate::support::firmware::{Firmware, uefi_program};
use crate::support::router::Relay;
use crate::support::{Appliance, Lan, run};

const CARD: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 0x10];
const SECOND_CARD: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 0x20];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 51);
const FAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 50);
/// The installer's own, in no DHCP server.
const STATIC_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 77);
const EVIL_CARD: [u8; 6] = [0x02, 0, 0, 0, 0, 0x66];
const EVIL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

const TOKEN: &str = "hush-hush-a-join-token-of-43-letters-or-more";
const PASSWORD: &str = "hush-hush-a-root-password";
/// What he makes up for an id.
const GUESS: &str = "00000000000000000000000000000000";

const CONFIG: &str = "
server: { nbps: [./nbps] }
omni: { lab: { api: 'https://omni.example', join_token: { file: ./omni.token } } }
images:
  talos: { kernel: ./linux, initrd: ./first, talos: { version: v1.11.2 } }
profiles:
  install:
    script: own
    image: talos
    omni: lab
    boot: once
    wipes: true
    files: { preseed.cfg: ./preseed.cfg }
  rescue: { script: linux, image: talos }
menu: { default: local, profiles: [rescue] }
machines:
  oden: { mac: ['52:54:00:77:00:10', '52:54:00:77:00:20'], profile: install }
";

const HTTP: &str = "http://10.77.0.2:8080";
const FACTS: &str = "uuid=&serial=&product=&vendor=&platform=pcbios&arch=i386&cpu=x64&v2=yes";
/// Of another machine.
const OTHER_FACTS: &str = "uuid=0f0f0f0f-0000-4000-8000-00000000000f&serial=EVIL&product=EVIL\
                           &vendor=EVIL&platform=efi&arch=x86_64&cpu=x64&v2=no&nic=011af41000";

type Options<'a> = &'a [(u8, &'a [u8])];

const BIOS: Options<'_> = &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])];
const UEFI: Options<'_> = &[(60, b"PXEClient:Arch:00007:UNDI:003016"), (93, &[0, 7])];
const HTTP_BOOT: Options<'_> = &[(60, b"HTTPClient:Arch:00016:UNDI:003001"), (93, &[0, 16])];
const IPXE: Options<'_> =
    &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (77, b"iPXE"), (93, &[0, 0])];
const UEFI_IPXE: Options<'_> =
    &[(60, b"HTTPClient:Arch:00016:UNDI:003001"), (77, b"iPXE"), (93, &[0, 16])];
/// As a card with iPXE in its ROM sends it: its bus id, its version, and its features, with HTTP (0x13).
const ROM_IPXE: Options<'_> = &[
    (60, b"PXEClient:Arch:00000:UNDI:002001"),
    (77, b"iPXE"),
    (93, &[0, 0]),
    (
        175,
        b"\xb1\x05\x01\x1a\xf4\x10\x00\xeb\x03\x01\x15\x01\x17\x01\x01\x13\x01\x01\x11\x01\x01\
          \x18\x01\x01\x10\x01\x02",
    ),
];

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A BIOS, whose installer has a static address.
    StaticAddress,
    /// The first boot by one card, the next by the other.
    TwoCards,
    RomIpxe,
    HttpBoot,
    /// UEFI behind a relay agent.
    Relayed,
    /// A BIOS, whose DHCP server names the NBP; `dhcp: off`.
    NamedByTheRouter,
}

/// The machine, its neighbour, and the appliance.
struct Scene {
    kind: Kind,
    machine: Firmware,
    evil: Firmware,
    folder: Folder,
    appliance: RefCell<Appliance>,
    _relay: Option<Relay>,
    /// From which port he sent his last TFTP request with a forged source.
    port: Cell<u16>,
    /// The id of its last boot.
    id: RefCell<Option<String>>,
    /// The ids of its boots before that, which are closed.
    stale: RefCell<BTreeSet<String>>,
}

impl Scene {
    fn new(lan: &Lan, kind: Kind) -> Self {
        let folder = Folder::new();
        let config = match kind {
            Kind::NamedByTheRouter => CONFIG.replace("{ nbps:", "{ dhcp: off, nbps:"),
            Kind::StaticAddress
            | Kind::TwoCards
            | Kind::RomIpxe
            | Kind::HttpBoot
            | Kind::Relayed => CONFIG.to_owned(),
        };
        folder.write("config.yaml", config);
        folder.write("omni.token", TOKEN);
        folder.write(
            "boot-scripts/own.ipxe",
            "{% set more = [\"url=\" ~ files[\"preseed.cfg\"]] %}\n{% include \"talos.ipxe\" %}\n",
        );
        folder.write("preseed.cfg", format!("d-i passwd/root-password password {PASSWORD}\n"));
        folder.write("nbps/undionly.kpxe", vec![0xea; 20_000]);
        folder.write("nbps/ipxe.pxe", vec![0xeb; 20_000]);
        folder.write("nbps/snponly.efi", uefi_program(0x8664, "snponly"));
        folder.write("linux", vec![1; 20_000]);
        folder.write("first", vec![2; 20_000]);
        let (address, relay) = match kind {
            Kind::Relayed => {
                let far = lan.behind_a_relay();
                far.attach("machine", "10.78.0.50/24");
                let route = ["route", "add", "default", "via", "10.78.0.1"];
                run("ip", &[&["-n", "machine"], &route[..]].concat());
                (FAR_ADDRESS, Some(Relay::start()))
            }
            Kind::StaticAddress
            | Kind::TwoCards
            | Kind::RomIpxe
            | Kind::HttpBoot
            | Kind::NamedByTheRouter => {
                lan.attach("machine", "10.77.0.50/24");
                (ADDRESS, None)
            }
        };
        if kind == Kind::TwoCards {
            lan.attach("second", "10.77.0.51/24");
        }
        lan.attach("evil", "10.77.0.66/24");
        Self {
            kind,
            machine: Firmware::new("machine", CARD, address),
            evil: Firmware::new("evil", EVIL_CARD, EVIL_ADDRESS),
            appliance: RefCell::new(Appliance::start(&folder)),
            folder,
            _relay: relay,
            port: Cell::new(7000),
            id: RefCell::default(),
            stale: RefCell::default(),
        }
    }

    /// What `reveille machine` reports and only the machine or the operator may change.
    fn reported(&self) -> Map<String, Value> {
        let of = reported(&self.folder, "oden");
        let decided = ["name", "next", "armed", "boots", "last_boot", "alarm", "outdated"];
        let learned = ["vendor", "product", "serial", "uuid", "nic"];
        let mut kept: Map<String, Value> = [&decided[..], &learned[..]]
            .concat()
            .iter()
            .map(|name| ((*name).into(), of[*name].clone()))
            .collect();
        // Its kernel reports who has it: datagrams with a forged source name no other.
        if let Some(address) = of["address"].as_str() {
            let address: Ipv4Addr = address.parse().unwrap();
            let own = self.cards().iter().any(|(_, own)| *own == address);
            assert!(own || address == STATIC_ADDRESS, "{address}");
        }
        let mut macs: Vec<Value> = of["macs"].as_array().unwrap().clone();
        macs.sort_by_key(ToString::to_string);
        kept.insert("macs".into(), macs.into());
        kept
    }

    fn because(&self) -> String {
        self.reported()["next"]["because"].as_str().unwrap_or_default().to_owned()
    }

    /// The machine's DISCOVER, its offer, and its lease.
    fn leases(&self, firmware: &Firmware, options: Options<'_>) -> String {
        let mut discover = firmware.datagram(1, Ipv4Addr::UNSPECIFIED, options);
        // A relay sends the offer to the broadcast address only if it asks for that.
        discover[10] = 0x80;
        let offer = firmware.ask(&discover).expect("an honest machine is answered");
        firmware.take_lease(options);
        offer.file()
    }

    /// One boot, up to the end of its script's downloads, amid attacks: the script.
    fn boots(&self, firmware: &Firmware) -> String {
        self.attack("before its DISCOVER");
        let (tftp, nbp) = ("tftp://10.77.0.2", "tftp://10.77.0.2/undionly.kpxe");
        match self.kind {
            Kind::StaticAddress | Kind::TwoCards => {
                assert_eq!(self.leases(firmware, BIOS), "undionly.kpxe");
                firmware.fetch(nbp);
                self.attack("between its NBP and its script");
                let script = self.leases(firmware, IPXE);
                assert!(script.ends_with(&format!("{}.ipxe", firmware.hyphenated())), "{script}");
            }
            Kind::RomIpxe => {
                let script = self.leases(firmware, ROM_IPXE);
                assert!(script.ends_with("/boot/52-54-00-77-00-10.ipxe"), "{script}");
                self.attack("between its lease and its script");
            }
            Kind::HttpBoot => {
                let nbp = self.leases(firmware, HTTP_BOOT);
                assert_eq!(nbp, "http://10.77.0.2:8080/nbp/snponly.efi");
                firmware.fetch(&nbp);
                self.attack("between its NBP and its script");
                self.leases(firmware, UEFI_IPXE);
            }
            Kind::Relayed => {
                assert_eq!(self.leases(firmware, UEFI), "snponly.efi");
                let ack = firmware.request_boot_server(UEFI).expect("port 4011 answers");
                firmware.fetch(&format!("{tftp}/{}", ack.file()));
                self.attack("between its NBP and its script");
                self.leases(firmware, IPXE);
            }
            Kind::NamedByTheRouter => {
                assert_eq!(firmware.fetch(nbp).len(), 20_000);
                self.attack("between its NBP and its script");
                let led = String::from_utf8(firmware.fetch(nbp)).unwrap();
                assert!(led.starts_with("#!ipxe"), "{led}");
            }
        }
        let script = firmware.script("");
        let before = self.id.take();
        // Without DHCP a script that is fetched so soon is of the boot before: that is still open.
        if self.kind != Kind::NamedByTheRouter {
            self.stale.borrow_mut().extend(before);
        }
        self.attack("between its script and its kernel");
        script
    }

    /// It fetches all that its script boots, amid attacks, and its installer fetches its answers.
    fn installs(&self, firmware: &Firmware) {
        let script = self.boots(firmware);
        assert!(script.contains(TOKEN), "{script}");
        let before = self.reported()["boots"].as_u64().unwrap();
        let loads = |line: &&str| line.starts_with("kernel ") || line.starts_with("initrd ");
        let urls: Vec<&str> = script
            .lines()
            .filter(loads)
            .map(|line| line.split(' ').find(|word| word.starts_with("http://")).unwrap())
            .collect();
        let [kernel, initrd] = urls[..] else { panic!("{script}") };
        assert_eq!(firmware.fetch(kernel).len(), 20_000);
        self.attack("between its kernel and its initrd");
        assert_eq!(firmware.fetch(initrd).len(), 20_000);
        let end = format!("oden ({}): fetched talos/initrd", colons(firmware.mac));
        self.appliance.borrow_mut().wait_for(&end);
        assert_eq!(
            (self.because().as_str(), self.reported()["boots"].as_u64()),
            ("done", Some(before + 1))
        );
        self.fetches_its_answers(firmware, &script);
        let (_, id) = kernel.split_once("&id=").unwrap();
        self.id.replace(Some(id.to_owned()));
    }

    /// The installer fetches its answer file from its own address, and the neighbour, with the same URL, does not.
    fn fetches_its_answers(&self, firmware: &Firmware, script: &str) {
        let url = format!("http://10.77.0.2:8080{}/preseed.cfg", firmware.files_of(script));
        let steal = |why: &str| {
            let id = url.split('/').nth(5).unwrap();
            for url in [url.clone(), url.replace(id, GUESS), url.replace(&format!("{id}/"), "")] {
                let loot = self.evil.curl(&["--write-out", "%{http_code}", &url]).stdout;
                let loot = String::from_utf8(loot).unwrap();
                assert!(loot.ends_with("404") && !loot.contains(PASSWORD), "{why}: {url}: {loot}");
            }
        };
        steal("before the installer has");
        let moves = self.kind == Kind::StaticAddress;
        if moves {
            change_address(ADDRESS, STATIC_ADDRESS);
        }
        let answers = String::from_utf8(firmware.fetch(&url)).unwrap();
        assert!(answers.contains(PASSWORD), "{answers}");
        steal("while the installer has");
        self.attack("while its installer runs");
        assert_eq!(String::from_utf8(firmware.fetch(&url)).unwrap(), answers);
        if moves {
            change_address(STATIC_ADDRESS, ADDRESS);
        }
    }

    fn boots_its_disk(&self, firmware: &Firmware) {
        let script = self.boots(firmware);
        assert!(script.contains("goes to its local disk"), "{script}");
        assert_eq!(self.because(), "done");
    }

    /// Sends all that the neighbour has, and asserts that nothing comes of it.
    fn attack(&self, when: &str) {
        let before = self.reported();
        self.forge_dhcp();
        self.spoof();
        let urls = self.forged_urls();
        for agent in ["iPXE/1.21.1", "curl/8"] {
            let is_read = |url: &str| url.contains("/boot/") && !url.contains("&id=");
            let of_scripts = |url: &&String| agent.starts_with("iPXE") || is_read(url);
            let urls = urls.iter().filter(of_scripts).map(String::as_str);
            let arguments: Vec<&str> = ["--user-agent", agent].into_iter().chain(urls).collect();
            // Some of them are refused.
            let loot = self.evil.curl(&arguments).stdout;
            let loot = String::from_utf8_lossy(&loot);
            assert!(!loot.contains(TOKEN) && !loot.contains(PASSWORD), "{when}: {loot}");
            assert!(!has_id(&loot, &self.stale.borrow()), "{when}: {loot}");
            // Whoever reads a script is shown one that no iPXE runs.
            let is_script = agent.starts_with("iPXE") && loot.contains("/images/");
            assert!(!is_script, "{when}: {loot}");
        }
        // In his own name, with what the config could know the machine by.
        let own = format!("{HTTP}/boot/{}.ipxe?{OTHER_FACTS}&disk=failed", self.evil.hyphenated());
        let (_, own) = self.evil.fetch_as_ipxe(&own);
        assert!(!own.contains(TOKEN) && !own.contains(PASSWORD), "{when}: {own}");
        assert_eq!(self.reported(), before, "{when}");
    }

    /// The cards of the machine, each with the address that it leases.
    fn cards(&self) -> Vec<([u8; 6], Ipv4Addr)> {
        let first = (CARD, self.machine.address);
        if self.kind == Kind::TwoCards {
            vec![first, (SECOND_CARD, SECOND_ADDRESS)]
        } else {
            vec![first]
        }
    }

    /// DISCOVERs, REQUESTs, relayed ones and those to port 4011, of each kind of firmware, in its name.
    fn forge_dhcp(&self) {
        let (broadcast, server) = ((Ipv4Addr::BROADCAST, 67), (SERVER, 67));
        let (mut own, mut relayed, mut to_4011) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (card, address)) in self.cards().into_iter().enumerate() {
            let forged = self.evil.as_if_from(card);
            for (at, options) in [BIOS, UEFI, HTTP_BOOT, IPXE, UEFI_IPXE].into_iter().enumerate() {
                let xid = [b'e', b'v', u8::try_from(number).unwrap(), u8::try_from(at).unwrap()];
                let discover = forged.datagram(1, Ipv4Addr::UNSPECIFIED, options);
                let takes = |address: Ipv4Addr| {
                    let octets = address.octets();
                    let lease: [(u8, &[u8]); 2] = [(50, &octets), (54, &[10, 77, 0, 1])];
                    let options = [&lease, options].concat();
                    forged.datagram(3, Ipv4Addr::UNSPECIFIED, &options)
                };
                for mut datagram in [discover, takes(EVIL_ADDRESS), takes(address)] {
                    datagram[4..8].copy_from_slice(&xid);
                    own.push(datagram.clone());
                    for relay in [EVIL_ADDRESS, RELAY] {
                        datagram[24..28].copy_from_slice(&relay.octets());
                        relayed.push(datagram.clone());
                    }
                }
                for ciaddr in [EVIL_ADDRESS, address] {
                    let mut datagram = forged.datagram(3, ciaddr, options);
                    datagram[4..8].copy_from_slice(&xid);
                    to_4011.push(datagram);
                }
            }
        }
        self.evil.send(68, broadcast, &own);
        self.evil.send(67, server, &relayed);
        self.evil.send(4011, (SERVER, 4011), &to_4011);
        if self.kind != Kind::NamedByTheRouter {
            // The daemon serves strangers after the machines of the config: all of these are served by then.
            self.evil.discover(BIOS).expect("the neighbour's own machine is answered");
        }
    }

    /// Datagrams with the machine's address as their source: he does not see the answers.
    fn spoof(&self) {
        for (card, address) in self.cards() {
            let forged = self.evil.as_if_from(card);
            let requests = [BIOS, UEFI, IPXE].map(|options| forged.datagram(3, address, options));
            let to = (SERVER, 4011);
            self.evil.spoof(SocketAddrV4::new(address, 4011), to, &requests);
            let name = format!("{}.ipxe", forged.hyphenated());
            let request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
            self.port.set(self.port.get() + 1);
            let source = SocketAddrV4::new(address, self.port.get());
            self.evil.spoof(source, (SERVER, 69), &[request]);
        }
    }

    /// What he asks over HTTP and TFTP.
    fn forged_urls(&self) -> Vec<String> {
        let mut ids = vec![String::new(), format!("&id={GUESS}")];
        ids.extend(self.stale.borrow().iter().map(|id| format!("&id={id}")));
        let mut urls = Vec::new();
        for (card, _) in self.cards() {
            let (mac, colons) = (self.evil.as_if_from(card).hyphenated(), colons(card));
            urls.push(format!("{HTTP}/boot/{mac}.ipxe"));
            for id in &ids {
                for report in ["", "&boot=failed", "&disk=failed", "&profile=install"] {
                    urls.push(format!("{HTTP}/boot/{mac}.ipxe?{FACTS}{id}{report}"));
                }
                urls.push(format!(
                    "{HTTP}/boot/{mac}.ipxe?mac={colons}&boot=failed&disk=failed{id}"
                ));
                urls.push(format!("{HTTP}/boot/{mac}.ipxe?{OTHER_FACTS}{id}"));
                for part in ["kernel", "initrd"] {
                    urls.push(format!("{HTTP}/images/talos/{part}?mac={colons}{id}"));
                }
                let id = id.trim_start_matches("&id=");
                if !id.is_empty() {
                    urls.push(format!("{HTTP}/files/{mac}/{id}/preseed.cfg"));
                    urls.push(format!("tftp://10.77.0.2/boot-{id}/{mac}.ipxe"));
                    urls.push(format!("tftp://10.77.0.2/boot-{id}/images/talos/kernel"));
                }
            }
            urls.push(format!("{HTTP}/files/{mac}/preseed.cfg"));
            urls.push(format!("tftp://10.77.0.2/{mac}.ipxe"));
        }
        urls.push(format!("{HTTP}/nbp/undionly.kpxe"));
        urls.push("tftp://10.77.0.2/undionly.kpxe".to_owned());
        urls.push("tftp://10.77.0.2/autoexec.ipxe".to_owned());
        urls.push("tftp://10.77.0.2/images/talos/initrd".to_owned());
        urls
    }
}

fn colons(card: [u8; 6]) -> String {
    card.map(|byte| format!("{byte:02x}")).join(":")
}

/// Whether a text holds an id that he does not know.
fn has_id(text: &str, known: &BTreeSet<String>) -> bool {
    let words = text.split(|c: char| !c.is_ascii_hexdigit());
    words.into_iter().any(|word| word.len() == 32 && word != GUESS && !known.contains(word))
}

fn change_address(from: Ipv4Addr, to: Ipv4Addr) {
    for (verb, address) in [("del", from), ("add", to)] {
        run(
            "ip",
            &["-n", "machine", "addr", verb, &format!("{address}/24"), "brd", "+", "dev", "eth0"],
        );
    }
    run("ip", &["-n", "machine", "route", "replace", "255.255.255.255", "dev", "eth0"]);
}

/// It installs, boots its disk, installs by an order, and boots its disk.
fn boots_four_times(kind: Kind) -> impl FnOnce(Lan) {
    move |lan| {
        let scene = Scene::new(&lan, kind);
        let second =
            (kind == Kind::TwoCards).then(|| Firmware::new("second", SECOND_CARD, SECOND_ADDRESS));
        let (first, second) = (&scene.machine, second.as_ref().unwrap_or(&scene.machine));
        assert_eq!(scene.because(), "first");
        scene.installs(first);
        scene.boots_its_disk(second);
        done(&scene.folder, &["arm", "oden"]);
        assert_eq!(scene.because(), "armed");
        scene.installs(second);
        scene.boots_its_disk(first);
        scene.attack("after it was sent to its disk");
        assert_eq!((scene.because().as_str(), &scene.reported()["boots"]), ("done", &2.into()));
    }
}

#[test]
fn a_machine_with_ipxe_in_its_rom_boots_what_it_should_amid_all_attacks() {
    in_lab!(|lan| { boots_four_times(Kind::RomIpxe)(lan) });
}

#[test]
fn a_machine_with_uefi_http_boot_boots_what_it_should_amid_all_attacks() {
    in_lab!(|lan| { boots_four_times(Kind::HttpBoot)(lan) });
}

#[test]
fn a_machine_behind_a_relay_boots_what_it_should_amid_all_attacks() {
    in_lab!(|lan| { boots_four_times(Kind::Relayed)(lan) });
}

#[test]
fn a_machine_with_dhcp_off_boots_what_it_should_amid_all_attacks() {
    in_lab!(|lan| { boots_four_times(Kind::NamedByTheRouter)(lan) });
}

#[test]
fn a_machine_with_two_cards_boots_what_it_should_amid_all_attacks() {
    in_lab!(|lan| { boots_four_times(Kind::TwoCards)(lan) });
}

#[test]
fn an_installer_with_a_static_address_boots_what_it_should_amid_all_attacks() {
    in_lab!(|lan| { boots_four_times(Kind::StaticAddress)(lan) });
}
