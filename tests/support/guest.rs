//! A machine in QEMU that boots from its network card, until its Linux prints its command line.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::lan::permitted_guests;
use super::{Lan, PATH, packaged, run};

/// How long a boot may take, in seconds: it takes 8 to 35 here, alone.
const PATIENCE: &str = "240";

/// Guests that run now.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// The kinds of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// SeaBIOS; the card's ROM is an iPXE.
    Bios,
    /// OVMF's PXE client; the card has no ROM.
    Uefi,
    /// OVMF's HTTP Boot.
    UefiHttp,
}

/// What a machine has beyond its card.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardware<'a> {
    /// Memory in MiB, where the usual is not enough.
    pub memory: Option<u32>,
    /// Its CPU, where it is none of today, as QEMU's `-cpu` has it.
    pub cpu: Option<&'a str>,
    /// What its SMBIOS tables say of the system, as QEMU's `-smbios type=1` has it.
    pub smbios: Option<&'a str>,
    /// The MAC of a second card, which it boots from after the first one.
    pub second_card: Option<&'a str>,
    /// A disk that it boots after its cards.
    pub disk: Option<Disk<'a>>,
    /// A screen, for what runs only where there is one.
    pub screen: Option<Screen>,
}

/// A screen.
#[derive(Clone, Copy, Debug)]
pub struct Screen;

/// A disk.
#[derive(Clone, Copy, Debug)]
pub enum Disk<'a> {
    /// The bytes of this file.
    Image(&'a Path),
    /// A FAT file system with what is in this folder.
    Folder(&'a Path),
}

/// A running machine.
#[derive(Debug)]
pub struct Guest {
    qemu: Child,
    console: PathBuf,
    folder: tempfile::TempDir,
}

impl Guest {
    /// Switches a machine on.
    pub fn power_on(lan: &Lan, machine: Machine, mac: &str) -> Self {
        Self::power_on_with(lan, (machine, mac), Hardware::default())
    }

    /// Switches a machine on that has more than a card.
    pub fn power_on_with(
        lan: &Lan,
        (machine, mac): (Machine, &str),
        hardware: Hardware<'_>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the machine");
        let console = folder.path().join("console");
        let digits = mac.replace(':', "");
        let cable = |mac: &str| {
            let tap = format!("tap{}", &mac.replace(':', "")[6..]);
            lan.tap(&tap);
            format!("ifname={tap},script=no,downscript=no")
        };
        packaged("/usr/bin/qemu-system-x86_64", "qemu-system-x86");
        // Under KVM the firmware hangs on some hosts; interpreted it never does.
        let mut qemu = Command::new("timeout");
        qemu.env("PATH", PATH)
            .args(["-k", "5", PATIENCE, "qemu-system-x86_64"])
            .args(["-machine", "q35", "-accel", "tcg", "-nodefaults"])
            .args(["-nographic", "-no-reboot", "-monitor"])
            .arg(format!("unix:{},server=on,wait=off", folder.path().join("monitor").display()))
            .args(["-uuid", &format!("{}-{}-4000-8000-000000000000", &digits[..8], &digits[8..])])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-netdev")
            .arg(format!("tap,id=n0,{}", cable(mac)));
        if let Some(second) = hardware.second_card {
            qemu.arg("-netdev").arg(format!("tap,id=n1,{}", cable(second)));
            let rom = if machine == Machine::Bios { "" } else { ",romfile=" };
            let card = format!("virtio-net-pci,netdev=n1,mac={second},bootindex=1{rom}");
            qemu.args(["-device", &card]);
        }
        match machine {
            Machine::Bios => {
                packaged("/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu");
                qemu.args(["-m", "192", "-device"]);
                qemu.arg(format!("virtio-net-pci,netdev=n0,mac={mac},bootindex=0"));
            }
            Machine::Uefi => uefi(&mut qemu, folder.path(), mac),
            Machine::UefiHttp => {
                uefi(&mut qemu, folder.path(), mac);
                for pxe in ["IPv4PXESupport", "IPv6PXESupport"] {
                    qemu.arg("-fw_cfg").arg(format!("name=opt/org.tianocore/{pxe},string=n"));
                }
            }
        }
        hardware.plug_into(&mut qemu);
        let running = RUNNING.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(running <= permitted_guests(), "declare {running} guests: in_lab!(guests: …)");
        let qemu = qemu.stdin(Stdio::null()).spawn().expect("timeout (package coreutils) starts");
        Self { qemu, console, folder }
    }

    /// Waits until the machine has switched itself off, and returns the command line that its kernel
    /// was started with.
    pub fn command_line(mut self) -> String {
        self.qemu.wait().expect("it was started");
        let console = self.console();
        let line = console.split("LAB-CMDLINE-BEGIN").nth(1);
        let line = line.and_then(|rest| rest.split("LAB-CMDLINE-END").next());
        let Some(line) = line else {
            panic!("the machine did not reach its init; its console:\n{console}");
        };
        line.trim().to_owned()
    }

    /// Waits until `text` stands on the console; the machine goes on.
    pub fn wait_for(&mut self, text: &str) {
        while !self.console().contains(text) {
            let ended = self.has_ended();
            let console = self.console();
            assert!(!ended || console.contains(text), "no `{text}` on the console:\n{console}");
            // A console in a file tells nobody that it has grown.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses keys on its keyboard, by QEMU's names for them. Each is let go before the next one.
    pub fn press(&self, keys: &[&str]) {
        let mut monitor =
            UnixStream::connect(self.folder.path().join("monitor")).expect("QEMU runs");
        let mut prompted = |command: &str| {
            monitor.write_all(command.as_bytes()).expect("QEMU reads");
            let (mut read, mut byte) = (Vec::new(), [0]);
            while !read.ends_with(b"(qemu) ") {
                monitor.read_exact(&mut byte).expect("QEMU answers");
                read.extend(byte);
            }
        };
        prompted("");
        for key in keys {
            prompted(&format!("sendkey {key} 50\n"));
            // QEMU lets it go in its own time, and says nothing then.
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Whether it has switched itself off.
    pub fn has_ended(&mut self) -> bool {
        self.qemu.try_wait().expect("it was started").is_some()
    }

    /// What stands on its serial console: SeaBIOS, iPXE, OVMF and Linux all write there.
    pub fn console(&self) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }
}

impl Hardware<'_> {
    fn plug_into(&self, qemu: &mut Command) {
        qemu.args(["-cpu", self.cpu.unwrap_or("max")]);
        if let Some(memory) = self.memory {
            // The last one counts.
            qemu.args(["-m", &memory.to_string()]);
        }
        if let Some(smbios) = self.smbios {
            qemu.args(["-smbios", &format!("type=1,{smbios}")]);
        }
        if let Some(Screen) = self.screen {
            qemu.args(["-device", "VGA"]);
        }
        let file = match self.disk {
            Some(Disk::Image(file)) => file.display().to_string(),
            Some(Disk::Folder(folder)) => format!("fat:rw:{}", folder.display()),
            None => return,
        };
        qemu.arg("-drive").arg(format!("if=none,id=d0,format=raw,file={file}"));
        qemu.args(["-device", "ide-hd,drive=d0,bootindex=2"]);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // `timeout` hands it on; were it killed itself, the machine would run on, with its cable.
        if self.qemu.try_wait().is_ok_and(|ended| ended.is_none()) {
            run("kill", &["-TERM", &self.qemu.id().to_string()]);
        }
        self.qemu.wait().ok();
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

fn uefi(qemu: &mut Command, folder: &Path, mac: &str) {
    let code = packaged("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf");
    let variables = folder.join("variables");
    fs::copy(packaged("/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"), &variables)
        .expect("the machine's folder is writable");
    qemu.args(["-m", "256", "-device"]);
    qemu.arg(format!("virtio-net-pci,netdev=n0,mac={mac},romfile=,bootindex=0"));
    let flash = "if=pflash,format=raw";
    qemu.arg("-drive").arg(format!("{flash},unit=0,readonly=on,file={}", code.display()));
    qemu.arg("-drive").arg(format!("{flash},unit=1,file={}", variables.display()));
}

/// Debian's installer kernel.
pub fn kernel() -> PathBuf {
    let images = Path::new("/usr/lib/debian-installer/images");
    let found = fs::read_dir(images).into_iter().flatten().flatten().find_map(|entry| {
        let kernel = entry.path().join("amd64/text/debian-installer/amd64/linux");
        kernel.exists().then_some(kernel)
    });
    found.expect("apt-get install debian-installer-12-netboot-amd64 (dev/setup test does it)")
}

/// The initial RAM disk of Debian's installer, which is this kernel's.
pub fn installer() -> PathBuf {
    kernel().with_file_name("initrd.gz")
}

/// What the machine runs: it prints its command line and switches itself off.
const INIT: &str = "#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /proc
$B mount -t proc proc /proc
echo
echo LAB-CMDLINE-BEGIN
$B cat /proc/cmdline
echo LAB-CMDLINE-END
$B ls /extra 2>/dev/null
$B poweroff -f
";

/// Builds the initramfs.
pub fn initramfs(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    fs::create_dir_all(root.join("bin")).expect("the folder is writable");
    let busybox = packaged("/usr/bin/busybox", "busybox-static");
    fs::copy(busybox, root.join("bin/busybox")).expect("the folder is writable");
    fs::write(root.join("init"), INIT).expect("the folder is writable");
    run("chmod", &["755", &root.join("init").display().to_string()]);
    packed(&root, &folder.join("initramfs.gz"))
}

/// Packs a folder as the kernel unpacks it.
pub fn packed(root: &Path, into: &Path) -> PathBuf {
    packaged("/usr/bin/cpio", "cpio");
    let pack =
        "cd \"$1\" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet | gzip -1n > \"$2\"";
    let (root, target) = (root.display().to_string(), into.display().to_string());
    run("sh", &["-ec", pack, "sh", &root, &target]);
    into.to_owned()
}
