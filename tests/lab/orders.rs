//! Orders for several machines at once, and what they and a reload do to installed machines.

use std::fs;
use std::sync::Mutex;

use serde_json::Value;

use crate::in_lab;
use crate::machines::{boot, done, machine, of_the_rack, rack, reveille};
use crate::support::Appliance;
use crate::support::appliance::Folder;

fn armed(folder: &Folder) -> usize {
    let listed = done(folder, &["machines", "--armed", "--json"]);
    serde_json::from_str::<Vec<Value>>(&listed).unwrap().len()
}

#[test]
fn an_order_for_several_machines_is_one_order_and_survives_a_kill() {
    in_lab!(|lan| {
        let folder = rack(1000, 1000);
        let appliance = Appliance::start(&folder);
        let output = reveille(&folder, &["arm", "m1?"]);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(why.contains("nothing was ordered: this order is for 10 machines"), "{why}");
        assert!(why.contains("m19      profile install: it is armed"), "{why}");
        assert_eq!((output.status.code(), armed(&folder)), (Some(1), 0));
        let output = reveille(&folder, &["arm", "--yes", "m1?", "m7", "m99"]);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(why.contains("there is no machine `m99`"), "{why}");
        assert_eq!(armed(&folder), 0);

        done(&folder, &["arm", "--yes", "m1?", "m7", "52-54-00-78-00-07"]);
        done(&folder, &["disk", "m8"]);
        appliance.signal("KILL");
        appliance.ended();
        let _appliance = Appliance::start(&folder);
        assert_eq!(armed(&folder), 11);
        let kept = of_the_rack(&lan, 8);
        kept.powers_on();
        let script = kept.fetch(&format!("http://10.77.0.2:8080/boot/{}.ipxe", kept.hyphenated()));
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("m8 goes to its local disk"), "{script}");
        done(&folder, &["disarm", "--all", "--yes"]);
        assert_eq!(armed(&folder), 0);
        assert_eq!(machine(&folder, "m8")["next"]["because"], "kept-on-disk");
    });
}

#[test]
fn a_reload_that_gives_an_installed_machine_another_profile_reports_that_its_disk_still_boots() {
    in_lab!(|lan| {
        let folder = rack(1000, 1000);
        let mut appliance = Appliance::start(&folder);
        boot(&of_the_rack(&lan, 7), &Mutex::default());
        appliance.wait_for("m7 (52:54:00:78:00:07): fetched linux/initrd");
        let config = fs::read_to_string(folder.path().join("config.yaml")).unwrap();
        let wiping = "{ script: linux, image: linux, boot: once, wipes: true }";
        let both = config
            .replace("profiles: { ", &format!("profiles: {{ debian: {wiping}, "))
            .replace(":07', profile: install", ":07', profile: debian")
            .replace(":08', profile: install", ":08', profile: debian");
        folder.write("config.yaml", both);
        let told = "profile install -> debian; its disk still boots; `reveille arm m7` installs debian at its next network boot";
        appliance.wait_for(&format!("m7: {told}"));
        let story = done(&folder, &["machine", "m7"]);
        assert!(story.contains(&format!("on disk     {told}")), "{story}");
        assert!(!appliance.log().contains("`reveille arm m8`"), "it was never installed");
        assert_eq!(machine(&folder, "m7")["next"]["boots"], "disk");
        done(&folder, &["arm", "m7"]);
        assert_eq!(machine(&folder, "m7")["next"]["profile"], "debian");
    });
}
