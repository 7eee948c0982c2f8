//! Real firmware boots, beside each of the DHCP servers that OPNsense has, and its Linux comes up
//! with exactly the command line that the config asks for.

use std::fs;

use crate::in_lab;
use crate::support::appliance::Folder;
use crate::support::guest::{initramfs, kernel};
use crate::support::router::{Ipv6, Relay};
use crate::support::{Appliance, Dhcp, Guest, Hardware, Lan, Machine, Router};

const TOKEN: &str = "w7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAVfCfSCD+/=";

pub const CONFIG: &str = "
server:
  nbps: [/usr/lib/ipxe]
omni:
  homelab:
    api: https://lab.omni.example
    join_token: { file: ./secrets/homelab.token }
    tunnel: true
images:
  talos:
    kernel: ./images/linux
    initrd: ./images/initramfs.gz
    talos: { version: v1.11.2 }
    cmdline: [lab.image=1]
profiles:
  talos:
    script: talos
    image: talos
    omni: homelab
    cmdline: [console=ttyS0, quiet, lab.profile=a||b]
machines:
  bios:
    mac: 52:54:00:77:00:01
    profile: talos
    cmdline: [talos.hostname=bios]
  uefi:
    mac: 52-54-00-77-00-02
    profile: talos
    cmdline: [talos.hostname=uefi]
  http:
    mac: 5254.0077.0003
    profile: talos
    cmdline: [talos.hostname=http]
  chained:
    mac: 52:54:00:77:00:04
    profile: talos
    replace_ipxe: true
    cmdline: [talos.hostname=chained]
";

/// The kernel line that [`CONFIG`] asks for, written out.
pub fn expected(host: &str) -> String {
    format!(
        "initrd=initrd talos.platform=metal init_on_alloc=1 slab_nomerge pti=on consoleblank=0 \
         nvme_core.io_timeout=4294967295 printk.devkmsg=on selinux=1 \
         siderolink.api=https://lab.omni.example?grpc_tunnel=true&jointoken=w7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAVfCfSCD%2B%2F%3D \
         talos.events.sink=[fdae:41e4:649b:9303::1]:8090 \
         talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092 \
         lab.image=1 console=ttyS0 quiet lab.profile=a||b talos.hostname={host}"
    )
}

pub fn appliance() -> (Folder, Appliance) {
    appliance_with(CONFIG)
}

/// The appliance with another config.
pub fn appliance_with(config: &str) -> (Folder, Appliance) {
    let folder = Folder::new();
    folder.write("config.yaml", config);
    folder.write("secrets/homelab.token", format!("{TOKEN}\n"));
    fs::create_dir_all(folder.path().join("images")).unwrap();
    fs::copy(kernel(), folder.path().join("images/linux")).unwrap();
    initramfs(&folder.path().join("images"));
    let appliance = Appliance::start(&folder);
    (folder, appliance)
}

/// What the operator does while a rack boots: an edit counts for the next boot, a mistake for none.
#[test]
fn a_machine_that_boots_again_has_the_line_as_it_was_edited_and_after_a_broken_edit_the_old_one() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let (folder, mut appliance) = appliance();
        let boot = || Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01").command_line();
        assert_eq!(boot(), expected("bios"));
        let edited = CONFIG.replace("lab.profile=a||b]", "lab.profile=a||b, lab.edit=1]");
        folder.write("config.yaml", &edited);
        appliance.wait_for("profile talos: cmdline + lab.edit=1");
        let line = expected("bios").replace("lab.profile=a||b", "lab.profile=a||b lab.edit=1");
        assert_eq!(boot(), line);
        folder.write("config.yaml", edited.replace("profile: talos", "profile: talso"));
        appliance.wait_for("there is no profile named `talso`; did you mean `talos`?");
        assert_eq!(boot(), line);
    });
}

/// The three firmwares, switched on together.
fn three_boot(lan: &Lan, dhcp: Dhcp) {
    let _router = Router::start(dhcp, Ipv6::Announced);
    let (_folder, mut appliance) = appliance();
    let bios = Guest::power_on(lan, Machine::Bios, "52:54:00:77:00:01");
    let uefi = Guest::power_on(lan, Machine::Uefi, "52:54:00:77:00:02");
    let http = Guest::power_on(lan, Machine::UefiHttp, "52:54:00:77:00:03");
    assert_eq!(bios.command_line(), expected("bios"));
    // The EFI stub sees the image's name as the first word.
    assert_eq!(uefi.command_line(), format!("kernel {}", expected("uefi")));
    assert_eq!(http.command_line(), format!("kernel {}", expected("http")));
    journey_without_token(&appliance.log());
}

fn journey_without_token(log: &str) {
    for token in [TOKEN, "w7uVuW3z"] {
        assert!(!log.contains(token), "the token stands in the log");
    }
    let steps = |machine: &str| -> Vec<String> {
        let marker = format!(" {machine} (");
        log.lines()
            .filter_map(|line| line.split_once(&marker)?.1.split_once("): "))
            .map(|(_, step)| step.split([' ', ':']).take(2).collect::<Vec<_>>().join(" "))
            .collect()
    };
    let contains_in_order = |machine: &str, wanted: &[&str]| {
        let steps = steps(machine);
        let mut rest = steps.iter();
        for step in wanted {
            assert!(rest.any(|s| s == step), "{machine}: no `{step}` in its order in {steps:#?}");
        }
    };
    contains_in_order(
        "bios",
        &["offered http", "takes its", "runs its", "fetched talos/kernel", "fetched talos/initrd"],
    );
    contains_in_order(
        "uefi",
        &[
            "offered snponly.efi",
            "takes its",
            "acknowledged snponly.efi",
            "fetched snponly.efi",
            "offered http",
            "takes its",
            "runs its",
            "fetched talos/kernel",
            "fetched talos/initrd",
        ],
    );
    contains_in_order(
        "http",
        &[
            "offered http",
            "takes its",
            "fetched snponly.efi",
            "offered http",
            "takes its",
            "runs its",
            "fetched talos/kernel",
            "fetched talos/initrd",
        ],
    );
}

#[test]
fn bios_uefi_and_http_boot_beside_dnsmasq() {
    in_lab!(guests: 3, |lan| { three_boot(&lan, Dhcp::Dnsmasq) });
}

#[test]
fn bios_uefi_and_http_boot_beside_kea() {
    in_lab!(guests: 3, |lan| { three_boot(&lan, Dhcp::Kea) });
}

#[test]
fn bios_uefi_and_http_boot_beside_isc() {
    in_lab!(guests: 3, |lan| { three_boot(&lan, Dhcp::Isc) });
}

#[test]
fn a_boot_file_that_the_router_names_too_does_not_win() {
    in_lab!(guests: 3, |lan| { three_boot(&lan, Dhcp::DnsmasqWithBootFile) });
}

#[test]
fn an_ipxe_in_the_rom_is_replaced_by_ours_once_and_does_not_loop() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let (_folder, mut appliance) = appliance();
        let guest = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:04");
        assert_eq!(guest.command_line(), expected("chained"));
        let log = appliance.log();
        let len = fs::metadata("/usr/lib/ipxe/undionly.kpxe").unwrap().len();
        let whole = format!("fetched undionly.kpxe over TFTP: {len} bytes");
        let fetched = log.matches(&whole).count();
        assert_eq!(fetched, 1, "the NBP was to be fetched once");
        let script = log.matches("runs its script: profile talos").count();
        assert_eq!(script, 1, "and the script after it");
    });
}

#[test]
fn what_a_machine_of_long_ago_needs_is_told_and_it_boots_all_the_same() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let config = CONFIG.replace("version: v1.11.2", "version: v1.12.0");
        let (_folder, mut appliance) = appliance_with(&config);
        for (kind, name, mac) in [
            (Machine::Bios, "bios", "52:54:00:77:00:01"),
            (Machine::Uefi, "uefi", "52:54:00:77:00:02"),
        ] {
            let hardware = Hardware {
                cpu: Some("qemu64"),
                smbios: Some(
                    "product=ProLiant DL320e Gen8 v2,uuid=00000000-0000-0000-0000-000000000000",
                ),
                ..Hardware::default()
            };
            let mut guest = Guest::power_on_with(&lan, (kind, mac), hardware);
            guest.wait_for(&format!("the CPU of {name} is older than x86-64-v2"));
            let kernel = if kind == Machine::Uefi { "kernel " } else { "" };
            let line = expected(name).replace("selinux=1", "selinux=1 module.sig_enforce=1");
            assert_eq!(guest.command_line(), format!("{kernel}{line}"));
            let log = appliance.log();
            for advice in [
                "its CPU is older than x86-64-v2",
                "Talos 1.12 and later turns on VT-d",
                "its board has no UUID of its own",
            ] {
                let told = format!("WARN {name} ({mac}): advice: {advice}");
                assert_eq!(log.matches(&told).count(), 1, "`{told}`: {log}");
            }
        }
        assert_eq!(appliance.log().matches("advice: ").count(), 6);
    });
}

#[test]
fn an_ipxe_that_is_led_to_its_script_over_tftp_boots_without_http() {
    in_lab!(guests: 1, |lan| {
        let named = "--dhcp-boot=52-54-00-77-00-01.ipxe,,10.77.0.2";
        let _router = Router::dnsmasq(&[named], Ipv6::Announced);
        let config = CONFIG.replacen("server:", "server:\n  dhcp: off", 1);
        let (_folder, mut appliance) = appliance_with(&config);
        let guest = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
        assert_eq!(guest.command_line(), expected("bios"));
        let log = appliance.log();
        for step in
            ["runs its script, fetched over TFTP: ", "fetched talos/kernel", "fetched talos/initrd"]
        {
            assert!(
                log.contains(&format!("INFO bios (52:54:00:77:00:01): {step}")),
                "{step}: {log}"
            );
        }
        assert!(!log.contains(TOKEN), "the token stands in the log");
    });
}

#[test]
fn bios_and_uefi_boot_from_another_lan_through_a_relay_agent() {
    in_lab!(guests: 2, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Silent);
        let far = lan.behind_a_relay();
        let _relay = Relay::start();
        let (_folder, mut appliance) = appliance();
        let chained = Guest::power_on(&far, Machine::Bios, "52:54:00:77:00:04");
        let uefi = Guest::power_on(&far, Machine::Uefi, "52:54:00:77:00:02");
        assert_eq!(uefi.command_line(), format!("kernel {}", expected("uefi")));
        assert_eq!(chained.command_line(), expected("chained"));
        assert!(!appliance.log().contains(TOKEN), "the token stands in the log");
    });
}

#[test]
fn a_lan_without_ipv6_only_takes_longer() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Kea, Ipv6::Silent);
        let (_folder, _appliance) = appliance();
        let guest = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
        assert_eq!(guest.command_line(), expected("bios"));
    });
}

#[test]
fn a_stranger_shows_the_menu_and_goes_to_its_disk_when_nobody_presses_a_key() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let folder = Folder::new();
        folder.write("config.yaml", "menu: { timeout: 2s }\nserver: { nbps: [/usr/lib/ipxe] }\n");
        let mut appliance = Appliance::start(&folder);
        let mut guest = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:09");
        guest.wait_for("What shall this machine boot?");
        guest.wait_for("goes to its local disk (exit)");
        guest.wait_for("No bootable device");
        appliance.wait_for("52:54:00:77:00:09: runs its script: the menu");
    });
}

#[test]
fn a_machine_whose_boot_is_refused_says_why_on_its_console() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let folder = Folder::new();
        folder.write("config.yaml", CONFIG);
        let mut appliance = Appliance::start(&folder);
        let mut guest = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
        appliance.wait_for("refused its boot: image talos has no ");
        guest.wait_for("reveille cannot boot 52:54:00:77:00:01:");
        guest.wait_for("images/linux: there is no such file");
        guest.wait_for("Asking again in 30 seconds");
    });
}
