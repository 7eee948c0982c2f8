//! TFTP where there is too much of it, where it goes badly, and where files change meanwhile.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, run};
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
        appliance.wait_for("10.77.0.50: broke off undionly.kpxe over TFTP at 0 of 74213 bytes");
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
