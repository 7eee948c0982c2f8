//! TFTP where there is too much of it, where it goes badly, and where files change meanwhile.

use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, inside, packaged, run};
use crate::tftp::{
    ack, ask, error_code, finish, finish_from, receive, receive_or_not, rrq, silent, socket,
};

const REQUEST: &[u8] = b"\0\x01undionly.kpxe\0octet\0";

/// The folder of every test, with settings of TFTP.
fn with_tftp(settings: &str) -> Folder {
    let folder = folder();
    let config = format!("server: {{ nbps: [./nbps], tftp: {{ {settings} }} }}\n");
    folder.write("config.yaml", config);
    folder
}

/// A transfer that has begun: its socket, and DATA 1 with who sent it.
type Begun = (UdpSocket, (Vec<u8>, std::net::SocketAddr));

/// Begins a transfer, or is refused with this code.
fn begin(firmware: &Firmware) -> Result<Begun, u16> {
    let own = socket(firmware);
    let answer = ask(&own, REQUEST);
    match answer.0[..2] {
        [0, 3] => Ok((own, answer)),
        _ => Err(error_code(&answer.0)),
    }
}

/// An address can be forged, and who forges many could keep everybody out: who has acknowledged nothing
/// for a second makes room. Who has is never disturbed.
#[test]
fn where_it_is_full_who_acknowledged_nothing_makes_room_and_who_did_is_served() {
    in_lab!(|lan| {
        let folder = with_tftp("max_transfers: 3, max_per_address: 2");
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        lan.attach("other", "10.77.0.51/24");
        let other = Firmware::new("other", [2; 6], Ipv4Addr::new(10, 77, 0, 51));

        let (own, (_, transfer)) = begin(&firmware).unwrap();
        own.send_to(&ack(1), transfer).unwrap();
        let second = receive(&own);
        assert_eq!(second.0[..4], [0, 3, 0, 2]);
        let _silent = begin(&firmware).unwrap();
        assert_eq!(begin(&firmware).unwrap_err(), 0, "to this address are two, and both are new");
        appliance.wait_for("too many transfers to this address: `server.tftp.max_per_address`");
        let _silent_too = begin(&other).unwrap();
        assert_eq!(begin(&other).unwrap_err(), 0, "there are three, and all are new");
        appliance.wait_for("the server is busy: `server.tftp.max_transfers` are running");

        thread::sleep(Duration::from_millis(1100));
        let at_this_address = begin(&firmware).unwrap();
        appliance
            .wait_for("52:54:00:77:00:10: broke off undionly.kpxe over TFTP at 0 of 74213 bytes");
        let at_another = begin(&other).unwrap();
        appliance.wait_for("had acknowledged nothing, and another one needed the room");
        assert_eq!(begin(&firmware).unwrap_err(), 0);
        for (own, answer) in [at_this_address, at_another] {
            assert_eq!(finish(&own, answer).len(), 74_213);
        }
        assert_eq!(finish_from(2, &own, second).len(), 74_213 - 512, "it was never disturbed");
    });
}

/// RFC 1350 section 5: an ERROR is "a courtesy". To forged addresses it would be a flood.
#[test]
fn errors_are_few_in_a_second_and_transfers_go_on() {
    in_lab!(|lan| {
        let folder = with_tftp("max_errors: 5");
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let running = begin(&firmware).unwrap();
        let own = socket(&firmware);
        for _ in 0..100 {
            own.send_to(&rrq(b"gone.efi", &[]), ("10.77.0.2", 69)).unwrap();
            own.send_to(&ack(7), running.1.1).unwrap();
        }
        own.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let errors = std::iter::from_fn(|| receive_or_not(&own)).count();
        assert!((5..10).contains(&errors), "{errors} in a moment");
        assert_eq!(finish(&running.0, running.1).len(), 74_213);
        thread::sleep(Duration::from_millis(500));
        assert_eq!(error_code(&ask(&own, &rrq(b"gone.efi", &[])).0), 1);
    });
}

/// Who forges an address chooses one that is elsewhere: what is sent there would leave this LAN.
#[test]
fn who_asks_from_a_subnet_that_is_not_served_hears_nothing_unless_it_is_named() {
    in_lab!(|lan| {
        run("ip", &["-n", "appliance", "route", "add", "10.99.0.0/24", "dev", "eth0"]);
        let firmware = machine(&lan);
        run("ip", &["-n", "machine", "addr", "add", "10.99.0.9/24", "dev", "eth0"]);
        let far = Firmware::new("machine", firmware.mac, Ipv4Addr::new(10, 99, 0, 9));
        let own = socket(&far);

        let folder = with_tftp("port: 69");
        let mut appliance = Appliance::start(&folder);
        own.send_to(REQUEST, ("10.77.0.2", 69)).unwrap();
        own.send_to(b"\0\x02x\0octet\0", ("10.77.0.2", 69)).unwrap();
        silent(&own);
        appliance.wait_for(
            "10.99.0.9: not answered: its TFTP request came from no subnet of eth0; if machines boot from there, name theirs in `server.tftp.subnets`",
        );
        drop(appliance);

        let folder = with_tftp("subnets: [10.98.0.0/16, 10.99.0.0/24]");
        let _appliance = Appliance::start(&folder);
        let (own, answer) = begin(&far).unwrap();
        assert_eq!(finish(&own, answer).len(), 74_213);
        // From the host itself, as an operator tries it.
        for address in [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::LOCALHOST] {
            let here = Firmware::new("appliance", [2; 6], address);
            let own = socket(&here);
            own.send_to(REQUEST, (address, 69)).unwrap();
            assert_eq!(finish(&own, receive(&own)).len(), 74_213, "{address}");
        }
    });
}

/// RFC 1350 is what every client can: who breaks off twice with options gets the plain transfer.
#[test]
fn who_fails_twice_with_options_gets_plain_blocks_and_the_log_says_so() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let options = [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];
        for _ in 0..2 {
            let own = socket(&firmware);
            let (oack, from) = ask(&own, &rrq(b"undionly.kpxe", &options));
            assert_eq!(oack, b"\0\x06tsize\x0074213\0blksize\x001468\0windowsize\x004\0");
            own.send_to(&ack(0), from).unwrap();
            assert_eq!(receive(&own).0.len(), 1472);
            own.send_to(b"\0\x05\0\x03no room\0", from).unwrap();
            appliance.wait_for("(tsize 74213, blksize 1468, windowsize 4): the client ended it with error 3 `no room`");
        }
        let own = socket(&firmware);
        let (oack, from) = ask(&own, &rrq(b"undionly.kpxe", &options));
        assert_eq!(oack, b"\0\x06tsize\x0074213\0");
        assert_eq!(finish(&own, (oack, from)).len(), 74_213);
        appliance.wait_for("(tsize 74213, less than usual after failures)");
        lan.attach("other", "10.77.0.51/24");
        let other = Firmware::new("other", [2; 6], Ipv4Addr::new(10, 77, 0, 51));
        let (oack, _) = ask(&socket(&other), &rrq(b"undionly.kpxe", &options));
        assert_eq!(
            oack, b"\0\x06tsize\x0074213\0blksize\x001468\0windowsize\x004\0",
            "another client has not failed"
        );
    });
}

/// One line for each transfer: how much, how long, what was agreed, what was sent again, and the end.
#[test]
fn a_transfer_ends_in_one_event_that_tells_how_it_went() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let own = socket(&firmware);
        let first = ask(&own, &rrq(b"undionly.kpxe", &[("tsize", "0")]));
        let again = receive(&own);
        assert_eq!(again, first, "after a second");
        assert_eq!(finish(&own, again).len(), 74_213);
        let line = appliance.wait_for("fetched undionly.kpxe over TFTP: 74213 bytes in 1.");
        assert!(line.ends_with("s (tsize 74213; 1 packet sent again)"), "{line}");
        // RFC 1350 section 6: the last ACK may be lost and come again. There is nothing to say to it.
        own.send_to(&ack(145), first.1).unwrap();
        silent(&own);

        let probe = socket(&firmware);
        let (_, from) = ask(&probe, &rrq(b"undionly.kpxe", &[("tsize", "0")]));
        probe.send_to(b"\0\x05\0\x08\0", from).unwrap();
        appliance.wait_for("asked for the size of undionly.kpxe over TFTP (tsize 74213)");
        let log = appliance.log();
        assert_eq!(log.matches("undionly.kpxe").count(), 2, "{log}");
    });
}

/// What has begun ends with the bytes that it began with.
#[test]
fn a_file_that_is_replaced_is_served_new_and_what_was_under_way_ends_with_the_old_one() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let path = folder.path().join("nbps/undionly.kpxe");
        let old = fs::read(&path).unwrap();
        let renamed: Vec<u8> = old.iter().map(|byte| byte ^ 0x55).collect();
        let written: Vec<u8> = old.iter().map(|byte| byte ^ 0xaa).collect();
        let first = begin(&firmware).unwrap();
        let aside = folder.path().join("nbps/new");
        fs::write(&aside, &renamed).unwrap();
        fs::rename(&aside, &path).unwrap();
        let second = begin(&firmware).unwrap();
        fs::write(&path, &written).unwrap();
        let third = begin(&firmware).unwrap();
        fs::remove_file(&path).unwrap();
        for ((own, answer), content) in [(first, old), (second, renamed), (third, written)] {
            assert!(finish(&own, answer) == content);
        }
        assert_eq!(begin(&firmware).unwrap_err(), 2);
    });
}

/// The most memory that the daemon has had, in MiB.
fn peak(appliance: &Appliance) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", appliance.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Marks a sparse file at many places, and at its end.
fn mark(file: &File, len: u64) {
    file.set_len(len).unwrap();
    let marks = (0..len / (1 << 20)).map(|mib| mib << 20).chain([len - 8]);
    for at in marks {
        file.write_all_at(&at.to_be_bytes(), at).unwrap();
    }
}

/// Anybody can request an image of any size, which was once read whole for that.
#[test]
fn a_large_file_takes_little_memory_and_a_rack_that_fetches_it_not_much_more() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        machine(&lan);
        let path = folder.path().join("first");
        // More than 65535 blocks of 1468 bytes, and no whole number of pieces.
        let len = (300 << 20) + 12_345;
        let file = File::options().write(true).open(&path).unwrap();
        mark(&file, len);
        let before = peak(&appliance);
        let url = "tftp://10.77.0.2/debian/initrd";
        let fetch = |to: &str| {
            let mut curl = inside("machine", &packaged("/usr/bin/curl", "curl"));
            let always = ["--silent", "--show-error", "--max-time", "60", "--output", to];
            curl.args(always).args(["--tftp-blksize", "1468", url]).spawn().unwrap()
        };
        let fetched = folder.path().join("fetched");
        assert!(fetch(fetched.to_str().unwrap()).wait().unwrap().success());
        run("cmp", &[path.to_str().unwrap(), fetched.to_str().unwrap()]);
        fs::remove_file(&fetched).unwrap();
        appliance.wait_for(&format!("fetched debian/initrd over TFTP: {len} bytes"));
        let one = peak(&appliance) - before;
        assert!(one < 12, "a transfer of 300 MiB took {one} MiB");

        // Each has eight, and one address has as many.
        file.set_len(20 << 20).unwrap();
        let all = (0..8).map(|number| {
            let to = folder.path().join(format!("fetched-{number}"));
            (fetch(to.to_str().unwrap()), to)
        });
        for (mut curl, to) in all.collect::<Vec<_>>() {
            assert!(curl.wait().unwrap().success());
            run("cmp", &[path.to_str().unwrap(), to.to_str().unwrap()]);
        }
        let many = peak(&appliance) - before;
        assert!(many < 80, "eight transfers took {many} MiB");
    });
}

/// What a client has of a file is of one version, or no file.
#[test]
fn a_large_file_that_is_replaced_or_written_ends_its_transfers_with_an_error() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let path = folder.path().join("first");
        let aside = folder.path().join("aside");
        let clock = folder.path().join("clock");
        type Change = fn(&std::path::Path, &std::path::Path);
        let changes: [Change; 3] = [
            |path, aside| fs::rename(aside, path).unwrap(),
            |path, _| File::options().write(true).open(path).unwrap().set_len(1000).unwrap(),
            |path, _| {
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(b"new", 19 << 20).unwrap();
            },
        ];
        for change in changes {
            mark(&File::create(&path).unwrap(), 20 << 20);
            mark(&File::create(&aside).unwrap(), 20 << 20);
            let own = socket(&firmware);
            let (mut answer, from) = ask(&own, &rrq(b"debian/initrd", &[("blksize", "1468")]));
            assert_eq!(answer, b"\0\x06blksize\x001468\0");
            own.send_to(&ack(0), from).unwrap();
            assert_eq!(receive(&own).0[..4], [0, 3, 0, 1]);
            // The time of a change is the kernel's tick.
            let opened = fs::metadata(&path).unwrap();
            while {
                fs::write(&clock, "").unwrap();
                let now = fs::metadata(&clock).unwrap();
                (now.ctime(), now.ctime_nsec()) == (opened.ctime(), opened.ctime_nsec())
            } {}
            change(&path, &aside);
            let mut block = 0_u16;
            answer = loop {
                block += 1;
                own.send_to(&ack(block), from).unwrap();
                let (answer, _) = receive(&own);
                if answer[..2] != [0, 3] {
                    break answer;
                }
                let content = &answer[4..];
                let at = u64::from(block) * 1468;
                let mib = at.next_multiple_of(1 << 20);
                if mib + 8 <= at + 1468 {
                    let start = usize::try_from(mib - at).unwrap();
                    assert_eq!(content[start..start + 8], mib.to_be_bytes());
                }
                assert!(at < 1 << 20, "it ends with the pieces that were read before");
            };
            assert_eq!(error_code(&answer), 2);
            appliance.wait_for("first: the file was changed or replaced during the transfer");
            let whole = firmware.fetch("tftp://10.77.0.2/debian/initrd");
            assert!(whole == fs::read(&path).unwrap(), "whoever asks now gets the new one");
        }
    });
}

/// Anybody can invent addresses, and need not answer at any of them.
#[test]
fn a_machine_of_the_config_is_served_in_a_flood_of_strangers() {
    in_lab!(alone, |lan| {
        let folder = folder();
        let config = fs::read_to_string(folder.path().join("config.yaml")).unwrap();
        let limits = "nbps: [./nbps], tftp: { max_transfers: 8 }";
        folder.write("config.yaml", config.replace("nbps: [./nbps]", limits));
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        firmware.take_lease(&[(60, b"PXEClient"), (93, &[0, 0])]);
        appliance.wait_for("oden (52:54:00:77:00:10): takes its lease");
        lan.attach("evil", "10.77.0.66/24");
        // Every address from 10.77.0.128 on is its own.
        run("ip", &["-n", "evil", "route", "add", "local", "10.77.0.128/25", "dev", "lo"]);
        let strangers: Vec<_> = (128..254)
            .map(|last| Firmware::new("evil", [2; 6], Ipv4Addr::new(10, 77, 0, last)))
            .map(|stranger| socket(&stranger))
            .collect();
        let is_over = AtomicBool::new(false);
        let sent = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut sent = 0;
                while !is_over.load(Ordering::Relaxed) && sent < 500_000 {
                    // Some 25,000 a second.
                    thread::sleep(Duration::from_millis(5));
                    for stranger in &strangers {
                        stranger.send_to(REQUEST, ("10.77.0.2", 69)).ok();
                        sent += 1;
                    }
                }
                sent
            });
            appliance.wait_for("the server is busy");
            let (own, answer) = begin(&firmware).expect("a machine of the config has room");
            assert_eq!(finish(&own, answer).len(), 74_213);
            for _ in 0..30 {
                let own = socket(&firmware);
                let answer = ask(&own, &rrq(b"debian/initrd.1", &[]));
                assert_eq!(finish(&own, answer), [3; 1000]);
            }
            is_over.store(true, Ordering::Relaxed);
            flood.join().unwrap()
        });
        println!("in {sent} requests of strangers");
        appliance.wait_for("oden (52:54:00:77:00:10): fetched undionly.kpxe over TFTP: 74213");
        // A stranger that repeats its request, as firmware does, is served after that.
        lan.attach("other", "10.77.0.51/24");
        let other = socket(&Firmware::new("other", [2; 6], Ipv4Addr::new(10, 77, 0, 51)));
        other.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let served = (0..50).any(|_| {
            // Those that came before it have a second each.
            thread::sleep(Duration::from_millis(100));
            other.send_to(REQUEST, ("10.77.0.2", 69)).unwrap();
            let answer = receive_or_not(&other).filter(|(answer, _)| answer[..2] == [0, 3]);
            answer.is_some_and(|answer| finish(&other, answer).len() == 74_213)
        });
        assert!(served);
    });
}
