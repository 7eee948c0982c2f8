//! Answer files: each machine's own, filled in from the config and from what its iPXE told; and what hostile
//! values come to in them and in scripts.

use std::net::Ipv4Addr;

use crate::in_lab;
use crate::journey::machine;
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, Lan};

const CONFIG: &str = "
images: { debian: { kernel: ./linux } }
profiles:
  debian:
    script: debian
    image: debian
    wipes: false
    files: { preseed.cfg: ./answers/preseed.cfg, note: ./answers/note, broken: ./answers/broken }
    vars: { disk: /dev/sda }
  shown: { script: inspect, files: { facts: ./answers/facts }, release: anyone }
machines:
  oden:
    mac: 52:54:00:77:00:10
    profile: debian
    ip: 10.77.0.50/24
    vars: { bay: 3 }
    files: { note: ./answers/own }
  loke: { serial: 'CZ 1&2%3+Ö', profile: shown }
groups:
  - { name: blades, match: { serial: 'B*' }, profile: shown, vars: { rack: r1 } }
";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("config.yaml", CONFIG);
    folder.write("linux", "a kernel");
    folder.write(
        "answers/preseed.cfg",
        "d-i passwd/username string {{ machine.name }}\n\
         d-i netcfg/get_ipaddress string {{ machine.ip }}\n\
         d-i partman-auto/disk string {{ machine.vars.disk }} {{ machine.vars.bay }}\n\
         d-i preseed/late_command string true {{ base }} {{ client.address }}\n",
    );
    folder.write("answers/note", "the profile's");
    folder.write("answers/own", "the machine's");
    folder.write("answers/broken", "\n{{ machine.nam }}\n");
    folder.write(
        "answers/facts",
        "{\"name\": {{ machine.name | tojson }}, \"group\": {{ group | tojson }},\n\
         \"serial\": {{ client.serial | tojson }}, \"product\": {{ client.product | tojson }},\n\
         \"word\": \"{{ client.vendor }}\"}\n",
    );
    folder
}

/// Fetches, whatever the status is: status and body.
fn get(firmware: &Firmware, path: &str) -> (String, String) {
    let url = format!("http://10.77.0.2:8080{path}");
    let output = firmware.curl(&["--write-out", "\n%{http_code}", &url]);
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn a_machine_gets_its_own_answers_with_their_length_and_is_told_of_none() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        firmware.loads_ipxe();
        let own = firmware.files_of(&firmware.script(""));
        let preseed = "d-i passwd/username string oden\n\
             d-i netcfg/get_ipaddress string 10.77.0.50\n\
             d-i partman-auto/disk string /dev/sda 3\n\
             d-i preseed/late_command string true http://10.77.0.2:8080 10.77.0.50\n";
        assert_eq!(get(&firmware, &format!("{own}/preseed.cfg")), ("200".into(), preseed.into()));
        appliance.wait_for("oden (52:54:00:77:00:10): fetched files/preseed.cfg over HTTP");
        assert_eq!(get(&firmware, &format!("{own}/note")).1, "the machine's");

        let url = format!("http://10.77.0.2:8080{own}/preseed.cfg");
        let head = firmware.curl(&["--head", &url]).stdout;
        let head = String::from_utf8(head).unwrap().to_lowercase();
        for line in [
            "http/1.1 200 ok".to_owned(),
            format!("content-length: {}", preseed.len()),
            "content-type: text/plain; charset=utf-8".to_owned(),
            "cache-control: no-store".to_owned(),
        ] {
            assert!(head.contains(&format!("{line}\r\n")), "{line}: {head}");
        }

        for name in ["preseed.txt", "%2e%2e%2fpreseed.cfg"] {
            assert_eq!(get(&firmware, &format!("{own}/{name}")).0, "404");
            let line = appliance.wait_for("refused files/52-54-00-77-00-10/");
            let why = "profile debian has no file of this name; it has: broken, note, preseed.cfg";
            assert!(line.contains(why), "{line}");
        }
        assert_eq!(get(&firmware, &format!("{own}/broken")).0, "404");
        let line = appliance.wait_for("refused files/52-54-00-77-00-10/broken");
        assert!(
            line.contains("answers/broken:2: `machine.nam` is not known; did you mean"),
            "{line}"
        );

        let stranger = own.replace("00-10/", "00-99/");
        for path in [format!("{stranger}/note"), format!("/files/{}/note", firmware.hyphenated())] {
            assert_eq!(get(&firmware, &path).0, "404");
            appliance
                .wait_for("it is withheld: it needs the file id of one of its machine's boots");
        }
        assert_eq!(get(&firmware, "/files/nobody/preseed.cfg").0, "404");
    });
}

#[test]
fn an_answer_file_that_is_edited_is_served_new_after_a_reload() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        firmware.loads_ipxe();
        let own = firmware.files_of(&firmware.script("")) + "/note";
        assert_eq!(get(&firmware, &own).1, "the machine's");
        folder.write("answers/own", "{{ machine.name }}'s new one");
        appliance.signal("HUP");
        appliance.wait_for("config: reloaded");
        assert_eq!(get(&firmware, &own).1, "oden's new one");
    });
}

/// A machine that stands nowhere by its MAC.
fn stranger(lan: &Lan) -> Firmware {
    lan.attach("stranger", "10.77.0.51/24");
    Firmware::new("stranger", [0x52, 0x54, 0, 0x77, 0, 0x11], Ipv4Addr::new(10, 77, 0, 51))
}

/// What iPXE writes for `:hexhyp` of a text (`core/base16.c`).
pub fn hexhyp(text: &str) -> String {
    let bytes: Vec<String> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    bytes.join("-")
}

/// Asks for its script as iPXE does that was asked what machine it is, with these SMBIOS strings.
fn tell(firmware: &Firmware, [serial, product, vendor]: [&str; 3]) -> (String, String) {
    let path = format!("/boot/{}.ipxe", firmware.hyphenated());
    let (_, asked) = get(firmware, &path);
    let chain = asked.lines().find(|line| line.starts_with("chain ")).unwrap();
    let url = chain.split(' ').find(|word| word.starts_with("http://")).unwrap();
    let told = url
        .replace("${uuid}", "")
        .replace("${serial:hexhyp}", &hexhyp(serial))
        .replace("${product:hexhyp}", &hexhyp(product))
        .replace("${manufacturer:hexhyp}", &hexhyp(vendor))
        .replace("${platform}", "pcbios")
        .replace("${buildarch}", "i386")
        .replace("${cpu}", "x64");
    assert!(!asked.is_empty() && !chain.contains("${}"), "{asked}");
    let output = firmware.curl(&["--globoff", "--write-out", "\n%{http_code}", &told]);
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[test]
fn a_machine_that_is_known_by_what_its_ipxe_told_gets_the_files_of_its_entry_or_group() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = stranger(&lan);
        let own = format!("/files/{}/facts", firmware.hyphenated());
        assert_eq!(get(&firmware, &own).0, "404", "it has told nothing yet");
        folder.reveille(&["confirm", "loke", "52:54:00:77:00:11"]);
        firmware.loads_ipxe();
        let facts = |firmware: &Firmware| -> serde_json::Value {
            let (status, text) = get(firmware, &own);
            assert_eq!(status, "200", "{text}");
            serde_json::from_str(&text).unwrap()
        };
        for serial in ["CZ 1&2%3+Ö", "cz 1&2%3+ö"] {
            let (_, script) = tell(&firmware, [serial, "X '1' ${x} || shell", "HP"]);
            assert!(script.contains("\necho reveille: this is loke\n"), "{script}");
            let loke = facts(&firmware);
            assert_eq!((&loke["name"], &loke["serial"]), (&"loke".into(), &serial.into()));
            assert_eq!(loke["product"], "X '1' ${x} || shell");
        }
        let (_, script) = tell(&firmware, ["B7", "X", "HP"]);
        assert!(script.contains("\necho group    blades\n"), "{script}");
        let blade = facts(&firmware);
        assert_eq!(
            (&blade["name"], &blade["group"]),
            (&"52:54:00:77:00:11".into(), &"blades".into())
        );
    });
}

#[test]
fn what_hostile_smbios_strings_say_is_shown_as_words_or_refused_and_never_run() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = stranger(&lan);
        let own = format!("/files/{}/facts", firmware.hyphenated());
        firmware.loads_ipxe();
        let long = "x".repeat(200);
        // Each begins with what puts it into the group.
        let table = [
            ("B\nshell", "B shell", false),
            ("B || shell", "B shell", false),
            ("B && shell ; #x", "B shell", false),
            ("B ${net0/mac}", "B", false),
            ("B\\", "unknown", false),
            ("B' | sh; `id` $(id)", "B' | sh; `id` $(id)", false),
            ("B%41&c=d+e", "B%41&c=d+e", false),
            ("B\"<x>", "B\"<x>", false),
            ("B-Ω.1", "B-Ω.1", true),
            (&format!("B{long}"), &format!("B{}", &long[1..]), true),
        ];
        let lines = tell(&firmware, ["B7", "X", "HP"]).1.lines().count();
        for (value, shown, is_a_word) in table {
            let (status, script) = tell(&firmware, [value, value, value]);
            assert_eq!(status, "200");
            assert_eq!(script.lines().count(), lines, "{value}: {script}");
            for fact in ["vendor", "product", "serial"] {
                let line = script.lines().find(|line| line.starts_with(&format!("echo {fact}")));
                let told = line.unwrap().split_once(fact).unwrap().1.trim();
                assert_eq!(told, shown, "{value}: {script}");
            }
            // The file prints its vendor as a word, in quotes.
            let (status, text) = get(&firmware, &own);
            assert_eq!(status == "200", is_a_word, "{value}: {text}");
            if is_a_word {
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!((&json["word"], &json["serial"]), (&shown.into(), &shown.into()));
            }
        }
    });
}
