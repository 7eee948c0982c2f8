//! Any bytes to port 69: the decoder, the name that is looked up, and what is granted of the options.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use reveille::pure::boot::served_names::{Asked, asked};
use reveille::pure::catalog::image_status::Shelf;
use reveille::pure::catalog::nbp::{Nbp, Nbps};
use reveille::pure::client::Arch;
use reveille::pure::config::problem::Problems;
use reveille::pure::config::resolve::resolve;
use reveille::pure::config::schema::File;
use reveille::pure::config::snapshot::{Config, Snapshot};
use reveille::pure::config::surroundings::Surroundings;
use reveille::pure::machine::state::MachineState;
use reveille::pure::tftp::options::{
    DEFAULT_BLKSIZE, MAX_BLKSIZE, MAX_WINDOWSIZE, Most, negotiate,
};
use reveille::pure::tftp::packet::{Packet, acknowledged, error, oack, on_the_wire};

static SNAPSHOT: LazyLock<Config> = LazyLock::new(|| {
    let images =
        "images: { talos: { kernel: /files/linux, initrd: [/files/first, /files/second] } }";
    let mut problems = Problems::new(Path::new("config.yaml"), images);
    let file = File::parse(images, &mut problems).expect("it is YAML");
    let mut nbps = Nbps::default();
    for (name, arch) in [("undionly.kpxe", Arch::Bios), ("x64/snponly.efi", Arch::UefiX64)] {
        nbps.add(Nbp { name: name.into(), path: Path::new("/files").join(name), arch, folder: 0 });
    }
    let found = Surroundings { nbps, ..Surroundings::default() };
    resolve(file, found, problems).expect("the config is right")
});

fuzz_target!(|datagram: &[u8]| {
    let rrq = match Packet::decode(datagram) {
        Ok(Packet::Rrq(rrq)) => rrq,
        Ok(Packet::Ack(block)) => {
            let lowest =
                u64::from(u32::from_be_bytes([datagram[0], datagram[1], 0xff, datagram[2]]));
            let means = acknowledged(block, lowest, lowest + MAX_WINDOWSIZE);
            let fits = |means: u64| (lowest..=lowest + MAX_WINDOWSIZE).contains(&means);
            return assert!(means.is_none_or(|means| fits(means) && on_the_wire(means) == block));
        }
        Ok(Packet::Error(..) | Packet::Wrq) | Err(_) => return,
    };
    assert_eq!(rrq.mode, rrq.mode.to_ascii_lowercase());
    for (at, (name, _)) in rrq.options.iter().enumerate() {
        assert!(rrq.options[..at].iter().all(|(before, _)| before != name), "{name} twice");
    }

    let now = Snapshot { config: &SNAPSHOT, shelf: &Shelf::default() };
    match asked(&rrq.file, now.served(), (&MachineState::default(), SystemTime::UNIX_EPOCH)) {
        Ok(Asked::Nbp(Nbp { path, .. }) | Asked::Image(_, path) | Asked::Companion(_, path)) => {
            assert!(path.starts_with("/files") && path.components().count() <= 4, "{path:?}");
        }
        Ok(Asked::Autoexec(name)) => assert!(!name.contains("..") && !name.contains('\0')),
        Ok(Asked::Script(_)) => {}
        Err(refusal) => {
            let packet =
                error(reveille::pure::tftp::packet::ErrorCode::NotFound, &refusal.to_string());
            assert!(packet.len() < 516);
        }
    }

    let usual = Most::over(1500);
    let plain = Most { is_plain: true, ..usual };
    let mute = Most { takes_oack: false, ..usual };
    let small = Most { windowsize: 1, ..Most::over(576) };
    for most in [usual, plain, mute, small] {
        for len in [0, 511, u64::MAX] {
            let granted = negotiate(&rrq, len, most);
            assert!((8..=MAX_BLKSIZE).contains(&granted.blksize));
            assert!((1..=MAX_WINDOWSIZE).contains(&granted.windowsize));
            assert!(most.takes_oack || granted.oack.is_empty());
            assert!(most != usual || !granted.is_held_back);
            let is_plain = (granted.blksize, granted.windowsize) == (DEFAULT_BLKSIZE, 1);
            assert!(is_plain || (!most.is_plain && most.takes_oack));
            for (name, value) in &granted.oack {
                let wanted = rrq.option(name).and_then(|value| value.parse::<u64>().ok());
                let wanted = wanted.expect("only what was asked for");
                assert!(*name == "tsize" || *value <= wanted, "{name}: {value} for {wanted}");
            }
            assert!(oack(&granted.oack).len() < 128);
        }
    }
});
