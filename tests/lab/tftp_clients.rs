//! Real TFTP clients, of programs and of firmware, each with its own idea of the protocol: what they
//! fetch is what is there, byte for byte.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::appliance::Folder;
use crate::support::guest::{initramfs, kernel};
use crate::support::router::Ipv6;
use crate::support::{Appliance, Dhcp, Guest, Lan, Machine, Router, inside, packaged, run};

const NAME: &str = "undionly.kpxe";

/// Bytes that tell every block from every other.
fn content(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Lengths that are hard for a client: none, less than a block, whole blocks of 512, of 1432 and of 1468
/// bytes, and a usual one.
const LENGTHS: [u32; 9] = [0, 1, 511, 512, 1024, 1432 * 3, 1468 * 16, 1468 * 33, 74_213];
/// curl 7.88 fails by itself after an empty file.
const SOME: &[u32] = LENGTHS.split_at(1).1;

/// A client fetches files of these lengths, each in each of these ways. It gets a folder to run in, and
/// writes `fetched`.
fn fetches_whole_files(
    lan: &Lan,
    (lengths, ways): (&[u32], &[&[&str]]),
    client: impl Fn(&Path, &[&str]),
) {
    let folder = folder();
    let mut appliance = Appliance::start(&folder);
    machine(lan);
    for len in lengths {
        let content = content(*len);
        folder.write("nbps/undionly.kpxe", &content);
        for way in ways {
            let own = Folder::new();
            client(own.path(), way);
            let fetched = fs::read(own.path().join("fetched")).unwrap();
            let got = fetched.len();
            assert!(fetched == content, "{way:?}: {got} of {len} bytes, or other ones");
            appliance.wait_for(&format!("fetched undionly.kpxe over TFTP: {len} bytes"));
        }
    }
    let log = appliance.log();
    assert!(!log.contains("broke off"), "{log}");
}

/// Runs a program on the machine's host, in this folder.
fn run_client(own: &Path, program: &str, package: &str, arguments: &[&str]) {
    let mut command = inside("machine", &packaged(program, package));
    let output = command.args(arguments).current_dir(own).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

#[test]
fn curl_fetches_nbps_whole_with_every_block_size() {
    in_lab!(|lan| {
        let blksize = |size| ["--tftp-blksize", size];
        let ways = [&[][..], &["--tftp-no-options"], &blksize("1468"), &blksize("8192")];
        fetches_whole_files(&lan, (SOME, &ways), |own, way| {
            let get = [
                "--silent",
                "--show-error",
                "--output",
                "fetched",
                "tftp://10.77.0.2/undionly.kpxe",
            ];
            run_client(own, "/usr/bin/curl", "curl", &[way, &get].concat());
        });
    });
}

#[test]
fn a_file_of_more_than_65535_blocks_comes_whole() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let content = content(40_000_000);
        folder.write("nbps/undionly.kpxe", &content);
        let output = firmware.curl(&["--tftp-no-options", "tftp://10.77.0.2/undionly.kpxe"]);
        assert!(output.status.success() && output.stdout == content, "{:?}", output.status);
    });
}

#[test]
fn tftp_hpa_fetches_nbps_whole() {
    in_lab!(|lan| {
        fetches_whole_files(&lan, (&LENGTHS, &[&["binary"]]), |own, mode| {
            let get = ["10.77.0.2", "-c", "get", NAME, "fetched"];
            run_client(own, "/usr/bin/tftp", "tftp-hpa", &[&["-m"], mode, &get].concat());
        });
    });
}

#[test]
fn atftp_fetches_nbps_whole_with_options_and_windows() {
    in_lab!(|lan| {
        let ways = [
            &[][..],
            &["blksize 1468"],
            &["blksize 65464", "tsize 0"],
            &["windowsize 4"],
            &["blksize 1432", "windowsize 64", "timeout 3"],
        ];
        fetches_whole_files(&lan, (&LENGTHS, &ways), |own, way| {
            let mut get = vec!["--get", "--remote-file", NAME, "--local-file", "fetched"];
            get.extend(way.iter().flat_map(|option| ["--option", option]));
            run_client(own, "/usr/bin/atftp", "atftp", &[&get[..], &["10.77.0.2"]].concat());
        });
    });
}

#[test]
fn busybox_fetches_nbps_whole() {
    in_lab!(|lan| {
        fetches_whole_files(
            &lan,
            (&LENGTHS, &[&[], &["-b", "1468"], &["-b", "65464"]]),
            |own, way| {
                let get = ["tftp", "-g", "-r", NAME, "-l", "fetched"];
                let arguments = [&get[..], way, &["10.77.0.2"]].concat();
                run_client(own, "/usr/bin/busybox", "busybox-static", &arguments);
            },
        );
    });
}

/// The crate's client waits for an OACK whatever it asked for, so it always asks for something.
#[test]
fn the_tftpd_crate_fetches_nbps_whole_with_windows() {
    in_lab!(|lan| {
        let ways = [&["-b", "1468"][..], &["-w", "8"], &["-b", "1432", "-w", "64"]];
        fetches_whole_files(&lan, (&LENGTHS, &ways), |own, way| {
            let fetched = own.join("fetched").display().to_string();
            let arguments = [&["-q", "-i", "10.77.0.2"], way, &[&fetched, NAME]].concat();
            let config =
                tftpd::ClientConfig::new(arguments.into_iter().map(str::to_owned)).unwrap();
            let mut client = tftpd::Client::new(&config).unwrap();
            // The namespace is a thread's own, and the threads that it starts inherit it.
            let fetch = move || {
                setns(File::open("/run/netns/machine").unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                client.run().unwrap()
            };
            assert!(std::thread::spawn(fetch).join().unwrap(), "{way:?}");
        });
    });
}

/// GRUB takes blocks of 1024 bytes and the size, and no window. It then says what it got.
#[test]
fn grubs_own_client_fetches_an_nbp_and_a_kernel_whole() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let folder = folder();
        folder.write("nbps/undionly.kpxe", content(1024 * 300));
        let kernel = folder.write("linux", content(3_000_000));
        let script = folder.write(
            "grub.cfg",
            "net_bootp\nsha256sum (tftp,10.77.0.2)/undionly.kpxe\n\
             sha256sum (tftp,10.77.0.2)/debian/kernel\necho no more\nhalt\n",
        );
        let image = folder.path().join("nbps/grub.efi");
        packaged("/usr/lib/grub/x86_64-efi/tftp.mod", "grub-efi-amd64-bin");
        packaged("/usr/bin/grub-mkimage", "grub-common");
        let (script, made) = (script.display().to_string(), image.display().to_string());
        let target = ["-O", "x86_64-efi", "-p", "/", "-o", &made, "-c", &script];
        let modules = ["efinet", "net", "tftp", "hashsum", "gcry_sha256", "echo", "halt"];
        run("grub-mkimage", &[&target[..], &modules].concat());
        folder.write(
            "config.yaml",
            "server: { nbps: [./nbps] }\n\
             images: { debian: { kernel: ./linux } }\n\
             profiles: { grub: { script: local-disk, nbp: { uefi-x64: grub.efi } } }\n\
             machines: { grub: { mac: 52:54:00:77:00:02, profile: grub } }\n",
        );

        let mut appliance = Appliance::start(&folder);
        let mut guest = Guest::power_on(&lan, Machine::Uefi, "52:54:00:77:00:02");
        let len = fs::metadata(image).unwrap().len();
        appliance.wait_for(&format!("fetched grub.efi over TFTP: {len} bytes"));
        appliance.wait_for("fetched undionly.kpxe over TFTP: 307200 bytes");
        appliance.wait_for("fetched debian/kernel over TFTP: 3000000 bytes");
        guest.wait_for("no more");
        for file in [folder.path().join("nbps/undionly.kpxe"), kernel] {
            let sum = Command::new("sha256sum").arg(&file).output().unwrap();
            guest.wait_for(&String::from_utf8(sum.stdout).unwrap()[..64]);
        }
    });
}

/// PXELINUX comes over TFTP like any NBP; its own client then fetches its module, its configuration, and a
/// kernel and an initrd by the names that images have. Linux says whether they came whole.
#[test]
fn pxelinuxs_own_client_fetches_its_module_and_its_configuration_and_boots_an_image() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let folder = folder();
        let program = fs::read(packaged("/usr/lib/PXELINUX/pxelinux.0", "pxelinux")).unwrap();
        folder.write("nbps/pxelinux.0", &program);
        let module = "/usr/lib/syslinux/modules/bios/ldlinux.c32";
        let module = fs::read(packaged(module, "syslinux-common")).unwrap();
        folder.write("nbps/ldlinux.c32", &module);
        folder.write(
            "nbps/pxelinux.cfg/default",
            "default lab\nlabel lab\nkernel debian/kernel\ninitrd debian/initrd\n\
             append console=ttyS0 quiet lab.by=pxelinux\n",
        );
        fs::copy(kernel(), folder.path().join("linux")).unwrap();
        initramfs(folder.path());
        folder.write(
            "config.yaml",
            "server: { nbps: [./nbps] }\n\
             images: { debian: { kernel: ./linux, initrd: ./initramfs.gz } }\n\
             profiles: { old: { script: local-disk, nbp: { bios: pxelinux.0 } } }\n\
             machines: { old: { mac: 52:54:00:77:00:01, profile: old, replace_ipxe: true } }\n",
        );

        let mut appliance = Appliance::start(&folder);
        let guest = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
        for (file, len) in [("pxelinux.0", program.len()), ("ldlinux.c32", module.len())] {
            appliance.wait_for(&format!("fetched {file} over TFTP: {len} bytes"));
        }
        // It looks for one for this machine first.
        appliance.wait_for("refused pxelinux.cfg/01-52-54-00-77-00-01: nothing is served under");
        appliance.wait_for("fetched pxelinux.cfg/default over TFTP: ");
        let len = |file: &str| fs::metadata(folder.path().join(file)).unwrap().len();
        for (part, file) in [("kernel", "linux"), ("initrd", "initramfs.gz")] {
            appliance.wait_for(&format!("fetched debian/{part} over TFTP: {} bytes", len(file)));
        }
        let line = guest.command_line();
        assert!(line.contains(" lab.by=pxelinux"), "{line}");
    });
}
