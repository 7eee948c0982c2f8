//! Every boot script that comes with reveille, on real firmware, until what it boots says so on the console.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::in_lab;
use crate::support::appliance::Folder;
use crate::support::guest::{initramfs, installer, kernel};
use crate::support::router::Ipv6;
use crate::support::{
    Appliance, Disk, Guest, Hardware, Lan, Machine, Router, Screen, packaged, run,
};

const BIOS: &str = "52:54:00:77:00:01";
const UEFI: &str = "52:54:00:77:00:02";

/// An appliance with this config, and with a kernel and two initrds that any profile may name.
fn serving(config: &str) -> (Folder, Router, Appliance) {
    let folder = Folder::new();
    folder.write("config.yaml", format!("server: {{ nbps: [/usr/lib/ipxe] }}\n{config}"));
    let images = folder.path().join("images");
    fs::create_dir_all(&images).unwrap();
    fs::copy(kernel(), images.join("linux")).unwrap();
    fs::copy(installer(), images.join("installer.gz")).unwrap();
    initramfs(&images);
    // Debian's installer asks for a name server where none is leased.
    let router = Router::dnsmasq(&["--dhcp-option=option:dns-server,10.77.0.1"], Ipv6::Announced);
    let appliance = Appliance::start(&folder);
    (folder, router, appliance)
}

/// A kernel line in which `ID` stands for the file id of this boot, which is another each time.
fn with_file_id(line: &str) -> String {
    let is_id = |part: &str| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = line.split('/').map(|part| if is_id(part) { "ID" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Both firmwares.
fn both(lan: &Lan) -> [Guest; 2] {
    [(Machine::Bios, BIOS), (Machine::Uefi, UEFI)]
        .map(|(kind, mac)| Guest::power_on(lan, kind, mac))
}

#[test]
fn debians_installer_fetches_its_preseed_and_runs_its_early_command() {
    in_lab!(guests: 1, |lan| {
        let config = "
images: { debian: { kernel: ./images/linux, initrd: ./images/installer.gz } }
profiles:
  debian:
    script: debian
    wipes: false
    image: debian
    cmdline: [console=ttyS0, DEBIAN_FRONTEND=text]
    files: { preseed.cfg: ./preseed.cfg }
machines:
  oden: { mac: 52:54:00:77:00:01, profile: debian, vars: { bay: 3 } }
";
        let (folder, _router, mut appliance) = serving(config);
        folder.write(
            "preseed.cfg",
            "d-i debian-installer/locale string C\n\
             d-i preseed/early_command string \
             echo lab: {{ machine.name }} in bay {{ machine.vars.bay }} is `hostname` > /dev/ttyS0; poweroff -f\n",
        );
        appliance.signal("HUP");
        appliance.wait_for("config: reloaded");
        let hardware = Hardware { memory: Some(1280), ..Hardware::default() };
        let mut guest = Guest::power_on_with(&lan, (Machine::Bios, BIOS), hardware);
        guest.wait_for("lab: oden in bay 3 is oden");
        appliance.wait_for("oden (52:54:00:77:00:01): fetched files/preseed.cfg over HTTP");
    });
}

#[test]
fn debians_installer_has_the_address_that_the_config_gives_its_machine() {
    in_lab!(guests: 1, |lan| {
        let config = "
images: { debian: { kernel: ./images/linux, initrd: ./images/installer.gz } }
profiles:
  debian:
    script: debian
    wipes: false
    image: debian
    cmdline: [console=ttyS0, DEBIAN_FRONTEND=text]
    files: { preseed.cfg: ./preseed.cfg }
machines:
  uefi:
    mac: 52:54:00:77:00:02
    profile: debian
    ip: 10.77.0.171/24
    gateway: 10.77.0.1
    hostname: frigg
";
        let (folder, _router, mut appliance) = serving(config);
        folder.write(
            "preseed.cfg",
            "d-i debian-installer/locale string C\n\
             d-i preseed/early_command string \
             echo lab: `hostname` at `ip -o -4 addr | grep -c {{ machine.ip }}/{{ machine.prefix }}` > /dev/ttyS0; poweroff -f\n",
        );
        appliance.signal("HUP");
        appliance.wait_for("config: reloaded");
        let hardware = Hardware { memory: Some(1280), ..Hardware::default() };
        let mut guest = Guest::power_on_with(&lan, (Machine::Uefi, UEFI), hardware);
        guest.wait_for("lab: frigg at 1");
    });
}

#[test]
fn memtest_shows_its_screen_on_bios_and_uefi() {
    in_lab!(guests: 1, |lan| {
        packaged("/boot/memtest86+x64.efi", "memtest86+");
        let config = "
images: { memtest: { kernel: /boot/memtest86+x64.bin, initrd: /boot/memtest86+x64.efi } }
profiles: { memtest: { script: memtest, image: memtest, cmdline: ['console=ttyS0,115200', nosmp] } }
unknown: memtest
";
        let (_folder, _router, _appliance) = serving(config);
        let hardware = Hardware { screen: Some(Screen), ..Hardware::default() };
        for (kind, mac) in [(Machine::Bios, BIOS), (Machine::Uefi, UEFI)] {
            let mut guest = Guest::power_on_with(&lan, (kind, mac), hardware);
            guest.wait_for("tests its memory with image memtest");
            guest.wait_for("Memtest86+");
        }
    });
}

#[test]
fn coreos_and_flatcar_are_told_where_their_ignition_is() {
    in_lab!(guests: 2, |lan| {
        let config = "
images: { linux: { kernel: ./images/linux, initrd: ./images/initramfs.gz } }
profiles:
  coreos:
    script: coreos
    wipes: false
    image: linux
    cmdline: [console=ttyS0, quiet]
    files: { config.ign: ./config.ign }
    vars: { rootfs: /images/linux/initrd }
  flatcar:
    script: flatcar
    wipes: false
    image: linux
    cmdline: [console=ttyS0, quiet]
    files: { config.ign: ./config.ign }
machines:
  coreos: { mac: 52:54:00:77:00:01, profile: coreos }
  flatcar: { mac: 52:54:00:77:00:02, profile: flatcar }
";
        let (_folder, _router, _appliance) = serving(config);
        let [coreos, flatcar] = both(&lan).map(|guest| with_file_id(&guest.command_line()));
        assert_eq!(
            coreos,
            "initrd=initrd console=ttyS0 quiet ignition.firstboot ignition.platform.id=metal \
             coreos.live.rootfs_url=http://10.77.0.2:8080/images/linux/initrd \
             ignition.config.url=http://10.77.0.2:8080/files/52-54-00-77-00-01/ID/config.ign"
        );
        assert_eq!(
            flatcar,
            "kernel initrd=initrd console=ttyS0 quiet flatcar.first_boot=1 \
             ignition.config.url=http://10.77.0.2:8080/files/52-54-00-77-00-02/ID/config.ign"
        );
    });
}

#[test]
fn kickstart_and_autoinstall_are_told_where_their_answers_are() {
    in_lab!(guests: 2, |lan| {
        let config = "
images: { linux: { kernel: ./images/linux, initrd: ./images/initramfs.gz } }
profiles:
  alma:
    script: kickstart
    wipes: false
    image: linux
    cmdline: [console=ttyS0, quiet]
    files: { ks.cfg: ./ks.cfg }
    vars: { repo: 'http://mirror.example/os/' }
  ubuntu:
    script: autoinstall
    wipes: false
    image: linux
    cmdline: [console=ttyS0, quiet]
    files: { user-data: ./user-data, meta-data: ./meta-data }
machines:
  alma: { mac: 52:54:00:77:00:01, profile: alma }
  ubuntu: { mac: 52:54:00:77:00:02, profile: ubuntu }
";
        let (_folder, _router, _appliance) = serving(config);
        let [alma, ubuntu] = both(&lan).map(|guest| with_file_id(&guest.command_line()));
        assert_eq!(
            alma,
            "initrd=initrd console=ttyS0 quiet BOOTIF=01-52-54-00-77-00-01 ip=dhcp \
             inst.repo=http://mirror.example/os/ \
             inst.ks=http://10.77.0.2:8080/files/52-54-00-77-00-01/ID/ks.cfg"
        );
        assert_eq!(
            ubuntu,
            "kernel initrd=initrd console=ttyS0 quiet ip=dhcp autoinstall \
             ds=nocloud;s=http://10.77.0.2:8080/files/52-54-00-77-00-02/ID/"
        );
    });
}

#[test]
fn netboot_xyz_is_chained_to_and_its_end_leads_back() {
    in_lab!(guests: 2, |lan| {
        // What stands in for it comes as an image.
        let config = "
images: { mirror: { kernel: ./menu.ipxe } }
profiles:
  netbootxyz: { script: netbootxyz, wipes: false, vars: { netbootxyz: 'http://10.77.0.2:8080/images/mirror/kernel' } }
unknown: netbootxyz
";
        let (folder, _router, mut appliance) = serving(config);
        folder.write(
            "menu.ipxe",
            "#!ipxe\necho lab: this is the ${platform} stand-in\nsleep 5\nexit\n",
        );
        for (mut guest, platform) in both(&lan).into_iter().zip(["pcbios", "efi"]) {
            guest.wait_for("goes to http://10.77.0.2:8080/images/mirror/kernel");
            guest.wait_for(&format!("lab: this is the {platform} stand-in"));
        }
        for mac in [BIOS, UEFI] {
            appliance.wait_for(&format!("{mac}: runs its script: profile netbootxyz"));
        }
    });
}

/// A disk whose boot sector prints a line on the first serial port.
pub fn bios_disk(folder: &Folder) -> PathBuf {
    let mut sector = vec![
        0xfc, // cld
        0x31, 0xc0, 0x8e, 0xd8, // ds = 0
        0xbe, 0x14, 0x7c, // si = the text
        0xba, 0xf8, 0x03, // dx = the port
        0xac, // next: lodsb
        0x84, 0xc0, 0x74, 0x03, // the end: halt
        0xee, // out dx, al
        0xeb, 0xf8, // next
        0xf4, // halt: hlt
    ];
    assert_eq!(sector.len(), 0x14);
    sector.extend(b"\r\nlab: this is the disk\r\n\0");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    folder.write("disk.img", sector)
}

/// A folder that UEFI boots as a disk, and which prints the same line.
pub fn uefi_disk(folder: &Folder) -> PathBuf {
    let says = folder.write("grub.cfg", "echo lab: this is the disk\nhalt\n");
    let program = folder.write("disk/EFI/BOOT/BOOTX64.EFI", "");
    packaged("/usr/lib/grub/x86_64-efi/echo.mod", "grub-efi-amd64-bin");
    packaged("/usr/bin/grub-mkimage", "grub-common");
    let (says, made) = (says.display().to_string(), program.display().to_string());
    run("grub-mkimage", &["-O", "x86_64-efi", "-p", "/", "-o", &made, "-c", &says, "echo", "halt"]);
    folder.path().join("disk")
}

const LOCAL: &str = "
profiles:
  exit: { script: local-disk, local_boot: exit }
  sanboot: { script: local-disk, local_boot: sanboot }
  http-404: { script: local-disk, local_boot: http-404 }
  silent: { script: local-disk, local_boot: silent }
machines:
  exit: { mac: 52:54:00:77:00:01, profile: exit }
  sanboot: { mac: 52:54:00:77:00:03, profile: sanboot }
  http-404: { mac: 52:54:00:77:00:04, profile: http-404 }
  silent: { mac: 52:54:00:77:00:05, profile: silent }
  uefi-exit: { mac: 52:54:00:77:00:02, profile: exit }
  uefi-404: { mac: 52:54:00:77:00:06, profile: http-404 }
";

#[test]
fn a_bios_machine_reaches_its_disk_in_each_of_the_four_ways() {
    in_lab!(guests: 1, |lan| {
        let (folder, _router, mut appliance) = serving(LOCAL);
        let disk = bios_disk(&folder);
        for (name, mac, at) in [
            ("exit", BIOS, "goes to its local disk (exit)"),
            ("sanboot", "52:54:00:77:00:03", "goes to its local disk (sanboot)"),
            ("http-404", "52:54:00:77:00:04", "/boot/52-54-00-77-00-04.ipxe"),
            ("silent", "52:54:00:77:00:05", "lab: this is the disk"),
        ] {
            // Each writes to its own.
            let own = folder.path().join(name);
            fs::copy(&disk, &own).unwrap();
            let hardware = Hardware { disk: Some(Disk::Image(&own)), ..Hardware::default() };
            let mut guest = Guest::power_on_with(&lan, (Machine::Bios, mac), hardware);
            guest.wait_for(at);
            guest.wait_for("lab: this is the disk");
        }
        let log = appliance.log();
        assert!(
            log.contains(
                "http-404 (52:54:00:77:00:04): left to its local disk: it boots its local disk"
            ),
            "{log}"
        );
    });
}

#[test]
fn a_uefi_machine_goes_on_to_its_disk_after_exit_and_after_a_404() {
    in_lab!(guests: 1, |lan| {
        let (folder, _router, _appliance) = serving(LOCAL);
        let disk = uefi_disk(&folder);
        for mac in [UEFI, "52:54:00:77:00:06"] {
            let hardware = Hardware { disk: Some(Disk::Folder(&disk)), ..Hardware::default() };
            let mut guest = Guest::power_on_with(&lan, (Machine::Uefi, mac), hardware);
            guest.wait_for("lab: this is the disk");
            let console = guest.console();
            let by_exit = console.contains("goes to its local disk (exit)");
            assert_eq!(by_exit, mac == UEFI, "{console}");
        }
    });
}

#[test]
fn the_menu_takes_its_default_when_the_time_is_over() {
    in_lab!(guests: 2, |lan| {
        let config = "
images: { linux: { kernel: ./images/linux, initrd: ./images/initramfs.gz } }
profiles:
  rescue: { script: linux, image: linux, cmdline: [console=ttyS0, quiet, lab.chosen=1] }
  disk: { script: local-disk, local_boot: silent }
menu: { default: rescue, timeout: 2s, profiles: [disk, rescue] }
";
        let (_folder, _router, mut appliance) = serving(config);
        for (guest, kernel) in both(&lan).into_iter().zip(["", "kernel "]) {
            let line = guest.command_line();
            assert_eq!(line, format!("{kernel}initrd=initrd console=ttyS0 quiet lab.chosen=1"));
        }
        let log = appliance.log();
        for mac in [BIOS, UEFI] {
            for does in ["the menu", "profile rescue, image linux"] {
                assert!(log.contains(&format!("{mac}: runs its script: {does}")), "{does}: {log}");
            }
        }
    });
}

#[test]
fn the_menu_asks_before_it_starts_what_wipes_and_no_leads_back() {
    in_lab!(guests: 1, |lan| {
        let config = "
images: { linux: { kernel: ./images/linux, initrd: ./images/initramfs.gz } }
profiles:
  install: { script: linux, image: linux, boot: once, wipes: true, cmdline: [console=ttyS0, quiet, lab.wiped=1] }
menu: { default: local, timeout: 0s, profiles: [install] }
";
        let (_folder, _router, mut appliance) = serving(config);
        let mut guest = Guest::power_on(&lan, Machine::Bios, BIOS);
        let shows = |guest: &mut Guest, text: &str, times: usize| {
            while guest.console().matches(text).count() < times {
                assert!(!guest.has_ended(), "{}", guest.console());
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        // The last lines of the two screens. In the menu the cursor is at the disk, below the profile.
        let (menu, question) = ("an iPXE shell", "yes, erase the disk");
        shows(&mut guest, menu, 1);
        guest.press(&["up", "ret"]);
        shows(&mut guest, question, 1);
        let console = guest.console();
        assert!(
            console.contains(&format!("Profile install erases the disk of {BIOS}")),
            "{console}"
        );
        let redrawn = console.matches(menu).count() + 1;
        guest.press(&["ret"]);
        shows(&mut guest, menu, redrawn);
        assert!(!appliance.log().contains("runs its script: profile install"));
        let asked = guest.console().matches(question).count() + 1;
        guest.press(&["up", "ret"]);
        shows(&mut guest, question, asked);
        guest.press(&["down", "ret"]);
        assert_eq!(guest.command_line(), "initrd=initrd console=ttyS0 quiet lab.wiped=1");
    });
}

#[test]
fn a_disk_that_is_silent_elsewhere_is_reached_from_the_menu_too() {
    in_lab!(guests: 1, |lan| {
        let config = "
profiles: { disk: { script: local-disk, local_boot: silent } }
menu: { default: disk, timeout: 2s, profiles: [disk] }
";
        let (folder, _router, _appliance) = serving(config);
        let disk = bios_disk(&folder);
        let hardware = Hardware { disk: Some(Disk::Image(&disk)), ..Hardware::default() };
        let mut guest = Guest::power_on_with(&lan, (Machine::Bios, BIOS), hardware);
        guest.wait_for("goes to its local disk (silent)");
        guest.wait_for("lab: this is the disk");
    });
}

#[test]
fn inspect_shows_what_smbios_says_and_a_group_by_product_is_found_once_it_was_asked() {
    in_lab!(guests: 2, |lan| {
        let config = "
images: { linux: { kernel: ./images/linux, initrd: ./images/initramfs.gz } }
profiles:
  blades: { script: linux, image: linux, cmdline: [console=ttyS0, quiet, lab.blade=1] }
  inspect: { script: inspect }
groups:
  - { name: asgard, match: { product: 'ProLiant BL460c*', vendor: HP, serial: 'CZ 31%&4+Ö' }, profile: blades }
unknown: inspect
";
        let (_folder, _router, mut appliance) = serving(config);
        let on = |kind, mac, smbios| {
            let hardware = Hardware { smbios: Some(smbios), ..Hardware::default() };
            Guest::power_on_with(&lan, (kind, mac), hardware)
        };
        let blade = on(
            Machine::Bios,
            BIOS,
            "manufacturer=HP,product=ProLiant BL460c Gen8,serial=CZ 31%&4+Ö,uuid=00112233-4455-6677-8899-aabbccddeeff",
        );
        let mut other =
            on(Machine::Uefi, UEFI, "manufacturer=Sun || shell,product=X4150,serial=0 1&2%3+4=5");
        for line in [
            "reveille: this is 52:54:00:77:00:02",
            "group none",
            "vendor Sun shell",
            "product X4150",
            "serial 0 1&2%3+4=5",
            "cpu x64",
            "card 1af4:10",
            "firmware uefi",
            "net0 52:54:00:77:00:02 10.77.0.",
            "Press s for an iPXE shell",
        ] {
            other.wait_for(line);
        }
        assert_eq!(blade.command_line(), "initrd=initrd console=ttyS0 quiet lab.blade=1");
        let log = appliance.log();
        assert!(log.contains("runs its script: asked what machine it is"), "{log}");
    });
}

#[test]
fn a_serial_number_of_whatever_characters_is_told_as_it_is_and_boots_its_machine() {
    in_lab!(guests: 2, |lan| {
        let config = "
images: { linux: { kernel: ./images/linux, initrd: ./images/initramfs.gz } }
profiles:
  blades: { script: linux, image: linux, cmdline: [console=ttyS0, quiet, lab.blade=1] }
machines:
  quoted: { serial: 'a\"b<c> #1', profile: blades }
  expanded: { serial: '5%41&x=1|\\^`{}${net0/mac}', profile: blades }
";
        let (folder, _router, mut appliance) = serving(config);
        // Anybody can claim a serial number: the operator says whose it is.
        for (name, mac) in [("quoted", BIOS), ("expanded", UEFI)] {
            folder.reveille(&["confirm", name, mac]);
        }
        let on = |kind, mac, smbios| {
            let hardware = Hardware { smbios: Some(smbios), ..Hardware::default() };
            Guest::power_on_with(&lan, (kind, mac), hardware)
        };
        let quoted = on(Machine::Bios, BIOS, "manufacturer=<\"HP\">,serial=a\"b<c> #1");
        let expanded = on(Machine::Uefi, UEFI, "serial=5%41&x=1|\\^`{}${net0/mac}");
        for (guest, kernel) in [(quoted, ""), (expanded, "kernel ")] {
            let line = guest.command_line();
            assert_eq!(line, format!("{kernel}initrd=initrd console=ttyS0 quiet lab.blade=1"));
        }
        let log = appliance.log();
        for (name, mac) in [("quoted", BIOS), ("expanded", UEFI)] {
            let booted = format!("{name} ({mac}): runs its script: profile blades, image linux");
            assert!(log.contains(&booted), "no `{booted}` in\n{log}");
        }
    });
}
