//! No join token, in whatever form, in anything that reveille says or leaves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::control::reveille;
use crate::in_lab;
use crate::journey::machine;
use crate::support::appliance::Folder;
use crate::support::guest::{initramfs, kernel};
use crate::support::router::Ipv6;
use crate::support::{Appliance, Dhcp, Guest, InFolder, Machine, Router, inside};

const PLAIN: &str = "w7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAVfCfSCD+/=";
/// Omni's own vector (`client/pkg/siderolink/siderolink_test.go`): infra provider `test`.
const SIGNED: &str = "v2:eyJleHRyYV9kYXRhIjp7Im9tbmkuc2lkZXJvLmRldi9pbmZyYS1wcm92aWRlci1pZCI6InRlc3QifSwic2lnbmF0dXJlIjoiWTNpZ285V2xJSVZOWWpXZmgyWlg5NnpnWW5UQjlwWTI3ZEJaVnJwNDJMZz0ifQ==";

const CONFIG: &str = "
server: { nbps: [/usr/lib/ipxe] }
omni:
  plain:
    kernel_args: { file: ./secrets/plain.token }
  signed: { api: https://lab.omni.example, join_token: { file: ./secrets/signed.token } }
images:
  talos: { kernel: ./images/linux, initrd: ./images/initramfs.gz, talos: { version: v1.11.2 } }
  far: { kernel: 'http://me:hushpassword@127.0.0.1:9/linux?token=hushquery' }
profiles:
  plain: { script: own, image: talos, omni: plain, cmdline: [console=ttyS0], files: { config.yaml: ./config.tpl }, wipes: false }
  signed: { script: talos, image: talos, omni: signed, cmdline: [console=ttyS0] }
  far: { script: linux, image: far }
machines:
  bios: { mac: 52:54:00:77:00:01, profile: signed }
  oden: { mac: 52:54:00:77:00:10, profile: plain }
  far: { mac: 52:54:00:77:00:11, profile: far }
";

/// What must stand nowhere: the tokens, as they are sent, what is in them, and a part of each that a
/// shortened one would still show.
const NEEDLES: [&str; 8] = [
    "w7uVuW3zbVKIYQ",
    "cyetAHeYMeo5q2L9RvkAVfCfSCD",
    "eyJleHRyYV9kYXRh",
    "c2lnbmF0dXJlIjoi",
    "Y3igo9WlIIVN",
    "WTNpZ285V2xJSVZO",
    "hushpassword",
    "hushquery",
];

fn pasted(token: &str) -> String {
    format!(
        "siderolink.api=https://plain.omni.example?jointoken={token} \
         talos.events.sink=[fdae:41e4:649b:9303::1]:8090 \
         talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092\n"
    )
}

fn is_silent(what: &str, text: &str) {
    for needle in NEEDLES {
        assert!(!text.contains(needle), "{what} tells {needle}:\n{text}");
    }
}

/// All that a command says is silent; what it says.
fn asked(folder: &Folder, arguments: &[&str]) -> String {
    let output = reveille(folder.path(), arguments);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    is_silent(&arguments.join(" "), &said);
    said
}

/// Every file below a folder.
fn each_file(folder: &Path, look: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => each_file(&path, look),
            kind if kind.is_file() => look(&path),
            _ => {}
        }
    }
}

#[test]
fn a_boot_that_joins_omni_tells_the_token_to_its_machine_and_to_nobody_else() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let folder = Folder::new();
        folder.write("config.yaml", CONFIG);
        folder.write(
            "boot-scripts/own.ipxe",
            "{% set more = [\"talos.config=\" ~ files[\"config.yaml\"]] %}\n{% include \"talos.ipxe\" %}\n",
        );
        folder.write("config.tpl", "apiUrl: {{ omni.api_url }}\n");
        folder.write(
            "secrets/plain.token",
            pasted("w7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAVfCfSCD%2B%2F%3D"),
        );
        folder.write("secrets/signed.token", format!("{SIGNED}\n"));
        fs::create_dir_all(folder.path().join("images")).unwrap();
        fs::copy(kernel(), folder.path().join("images/linux")).unwrap();
        initramfs(&folder.path().join("images"));
        let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
        command.arg("serve").in_folder(folder.path());
        let mut appliance = Appliance::spawn_other(command.env("REVEILLE_LOG", "trace"));
        appliance.wait_for("ready");

        let line = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01").command_line();
        assert!(line.contains("jointoken=v2%3AeyJleHRyYV9kYXRh"), "its machine has it: {line}");
        let firmware = machine(&lan);
        firmware.loads_ipxe();
        let script = firmware.script("");
        assert!(script.contains("jointoken=w7uVuW3zbVKIYQ"), "{script}");
        let config = format!("http://10.77.0.2:8080{}/config.yaml", firmware.files_of(&script));
        let config = String::from_utf8(firmware.fetch(&config)).unwrap();
        assert!(config.contains("jointoken=w7uVuW3zbVKIYQ"), "{config}");

        let checked = asked(&folder, &["check"]);
        assert!(
            checked.contains("omni plain: https://plain.omni.example; its join token is plain\n"),
            "{checked}"
        );
        let signed =
            "omni signed: https://lab.omni.example; its join token is v2, of infra provider test\n";
        assert!(checked.contains(signed), "{checked}");
        let render = asked(&folder, &["render", "oden", "--server", "10.77.0.2"]);
        assert!(
            render.contains("siderolink.api=https://plain.omni.example?jointoken=***"),
            "{render}"
        );
        for arguments in [
            &["status"][..],
            &["status", "--json"],
            &["check", "--json", "--all"],
            &["render", "bios", "--server", "10.77.0.2", "--json"],
            &["render", "oden", "--server", "10.77.0.2", "--script"],
            &["render", "oden", "--server", "10.77.0.2", "--file", "config.yaml"],
            &["images"],
            &["images", "--json"],
            &["pull", "far"],
            &["images", "prune", "--dry-run"],
            &["nbps", "--json"],
            &["reload"],
        ] {
            asked(&folder, arguments);
        }
        let mut simulate = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
        let simulate =
            simulate.args(["simulate", "--mac", "52:54:00:77:00:10", "--firmware", "bios"]);
        let simulated = simulate.in_folder(folder.path()).output().unwrap();
        let simulated = String::from_utf8([simulated.stdout, simulated.stderr].concat()).unwrap();
        assert!(simulated.contains("script"), "{simulated}");
        is_silent("simulate", &simulated);

        // What is wrong with a token is told, and no part of it.
        for bad in [
            PLAIN.replace("uzE", "u zE"),
            pasted("w7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAVfCfSCD"),
            SIGNED.replace("Y3", "Z4"),
            SIGNED.replace("v2:", "v2;"),
            SIGNED[..60].to_owned(),
            format!("{PLAIN}ä"),
        ] {
            folder.write("secrets/signed.token", &bad);
            folder.write(
                "secrets/plain.token",
                pasted(&bad).replace("siderolink.api", "siderolink.app"),
            );
            for arguments in [&["check"][..], &["reload"], &["status"], &["status", "--json"]] {
                asked(&folder, arguments);
            }
        }

        let daemon = appliance.pid();
        let of = |file: &str| {
            let bytes = fs::read(format!("/proc/{daemon}/{file}")).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        is_silent("its arguments", &of("cmdline"));
        is_silent("its environment", &of("environ"));
        let limits = of("limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let core: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(core, ["0", "0"], "it leaves no core dump");
        each_file(&folder.path().join("state"), &mut |path| {
            is_silent(
                &path.display().to_string(),
                &String::from_utf8_lossy(&fs::read(path).unwrap()),
            );
        });
        assert_eq!(
            fs::metadata(folder.path().join("state/control.sock")).unwrap().mode() & 0o77,
            0
        );
        is_silent("its log", &appliance.log());
        appliance.signal("ABRT");
        let (_, log) = appliance.ended();
        is_silent("its whole log", &log);
        each_file(folder.path(), &mut |path| {
            let name = path.file_name().unwrap().to_string_lossy();
            assert!(!name.starts_with("core"), "{}", path.display());
        });
    });
}
