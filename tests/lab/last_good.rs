//! What worked and is broken by a change stays as it was; what is broken from the start keeps nothing else.

use std::fs;

use serde_json::Value;

use crate::control::reveille;
use crate::in_lab;
use crate::journey::folder;
use crate::reload::{Running, saying, serve_config_map, status, swap};

impl Running {
    /// What has been done is not taken up, for this reason, told once; the machine's script is still `before`.
    fn keeps(&mut self, before: &str, told: &str) {
        self.appliance.wait_for("ERROR config: not reloaded, the last good one serves on:");
        self.appliance.wait_for(told);
        assert_eq!(self.script(), before);
        let (code, said) = status(self.folder.path());
        let config = &said["config"];
        assert_eq!((code, &config["faults"]), (Some(1), &Value::Array(Vec::new())));
        assert!(config["refused"]["text"].as_str().unwrap().contains(told), "{config}");
        let problems = config["refused"]["problems"].as_array().unwrap();
        let is_told = |problem: &&Value| problem["text"].as_str().unwrap().contains(told);
        let problem = problems.iter().find(is_told).unwrap();
        assert_eq!((&problem["is_error"], &problem["is_fault"]), (&true.into(), &true.into()));

        self.appliance.signal("HUP");
        self.appliance.wait_for("WARN config: not reloaded: what was wrong is still so");
        assert_eq!(self.appliance.log().matches(told).count(), 1, "{}", self.appliance.log());
    }

    /// Nothing is wrong any more.
    fn is_well(&self) {
        let (code, said) = status(self.folder.path());
        assert_eq!((code, &said["config"]["refused"]), (Some(0), &Value::Null), "{said}");
    }
}

#[test]
fn of_a_template_that_is_broken_the_good_one_stays_until_it_is_mended() {
    in_lab!(|lan| {
        let mut running = Running::start(&lan);
        running.folder.write("boot-scripts/linux.ipxe", "#!ipxe\necho {{ machine.name }}\n");
        running.reloads_once();
        let good = "#!ipxe\necho oden\n";
        assert_eq!(running.script(), good);

        // As an editor that has written half of it.
        running.folder.write("boot-scripts/linux.ipxe", "#!ipxe\necho {{ machine.na");
        running.keeps(
            good,
            "syntax error: unexpected end of input, expected end of variable block; boots",
        );
        running.folder.write("boot-scripts/linux.ipxe", "#!ipxe\necho two {{ machine.name }}\n");
        assert_eq!(running.reloads_once(), "template linux: changed");
        let good = "#!ipxe\necho two oden\n";
        assert_eq!(running.script(), good);

        // Nothing is wrong with it but a name.
        running.folder.write("boot-scripts/linux.ipxe", "#!ipxe\necho {{ machine.nam }}\n");
        running.keeps(good, "`machine.nam` is not known; did you mean `machine.name`?");
        // With it no other edit is taken up either.
        running.folder.write("config.yaml", saying("a=1"));
        running.appliance.wait_for("WARN config: not reloaded: what was wrong is still so");
        assert_eq!(running.script(), good);

        // There is a built-in one of that name.
        fs::remove_file(running.path("boot-scripts/linux.ipxe")).unwrap();
        assert_eq!(running.reloads_once(), ", with these changes");
        assert!(running.script().contains(" a=1 ||"), "{}", running.script());
        running.is_well();

        running.folder.write("config.yaml", saying("a=1").replace("script: linux", "script: own"));
        assert_eq!(running.reloads_once(), "profile debian: script linux -> own");
        let good = "#!ipxe\necho one\n";
        fs::remove_file(running.path("boot-scripts/own.ipxe")).unwrap();
        running.keeps(good, "there is no boot script named `own`");
        running.folder.write("boot-scripts/own.ipxe", good);
        running.reloads_once();
        running.is_well();
    });
}

#[test]
fn of_a_secret_that_is_emptied_or_goes_the_last_one_stays() {
    in_lab!(|lan| {
        let mut running = Running::start(&lan);
        let good = running.script();
        assert!(good.contains("?jointoken=hush "));
        running.folder.write("lab.token", "");
        running.keeps(&good, "lab.token is empty; boots that join lab are refused");
        fs::remove_file(running.path("lab.token")).unwrap();
        running.keeps(&good, "lab.token: there is no such file; boots that join lab");
        running.folder.write("lab.token", "of-the-night\n");
        assert_eq!(running.reloads_once(), "omni lab: join token changed");
        assert!(running.script().contains("?jointoken=of-the-night "));
        running.is_well();
        assert!(!running.appliance.log().contains("hush"));
    });
}

#[test]
fn of_a_script_that_is_misspelt_the_profile_stays_as_it_was() {
    in_lab!(|lan| {
        let mut running = Running::start(&lan);
        let good = running.script();
        let misspelt = saying("a=1").replace("script: linux", "script: linus");
        running.folder.write("config.yaml", misspelt);
        running.keeps(&good, "there is no boot script named `linus`; did you mean `linux`?");
        let output = reveille(running.folder.path(), &["reload"]);
        let said = String::from_utf8(output.stderr).unwrap();
        let first =
            "reveille: not reloaded, the last good config serves on:\n./config.yaml:5:21: error: ";
        assert!(said.starts_with(first), "{said}");
        assert_eq!(output.status.code(), Some(1));
        running.folder.write("config.yaml", saying("a=1"));
        assert_eq!(running.reloads_once(), "profile debian: cmdline + a=1 - a=0");
        running.is_well();
    });
}

/// After a power cut one bad file must not keep the other machines down.
#[test]
fn what_is_broken_at_the_start_refuses_its_own_boots_and_keeps_no_other_change() {
    in_lab!(|lan| {
        let folder = folder();
        let config = |argument: &str| {
            saying(argument)
                .replace("profiles:\n", "profiles:\n  own: { script: own, wipes: false }\n")
                .replace(
                    "machines: {",
                    "machines: { loke: { mac: 02:00:00:00:00:02, profile: own },",
                )
        };
        folder.write("config.yaml", config("a=0"));
        folder.write("boot-scripts/own.ipxe", "#!ipxe\necho {{ machin.name }}\n");
        folder.write("lab.token", "hush");
        let mut running = Running::start_in(&lan, folder);
        let log = running.appliance.log();
        let told = "boot-scripts/own.ipxe:2:9: profiles.own.script: boots of profile own are refused: `machin.name` is not known";
        assert_eq!(log.lines().filter(|line| line.contains("ERROR config: ")).count(), 1, "{log}");
        assert!(log.contains(told), "{log}");
        assert!(running.script().contains(" a=0 ||"));
        let loke = |running: &Running| {
            let url = "http://10.77.0.2:8080/boot/02-00-00-00-00-02.ipxe";
            running.firmware.fetch_as_ipxe(url).1
        };
        assert!(loke(&running).contains("`machin.name` is not known"), "{}", loke(&running));
        let (code, said) = status(running.folder.path());
        let fault = &said["config"]["faults"][0];
        assert_eq!((code, &fault["key"]), (Some(1), &"profiles.own.script".into()));
        assert_eq!(said["config"]["warnings"], Value::Array(Vec::new()), "{said}");

        running.folder.write("config.yaml", config("a=1"));
        assert_eq!(running.reloads_once(), "profile debian: cmdline + a=1 - a=0");
        assert_eq!(running.appliance.log().matches(told).count(), 1);
        // Half mended it is broken as before, in other words.
        running.folder.write("boot-scripts/own.ipxe", "#!ipxe\necho {{ machine.nam }}\n");
        assert_eq!(running.reloads_once(), "template own: changed");
        running.appliance.wait_for("ERROR config: ");
        assert!(running.appliance.log().contains("`machine.nam` is not known"));

        // Something else is another matter.
        let good = running.script();
        running.folder.write("lab.token", "");
        running.appliance.wait_for("ERROR config: not reloaded, the last good one serves on:");
        assert_eq!(running.script(), good);
        running.folder.write("boot-scripts/own.ipxe", "#!ipxe\necho {{ machine.name }}\n");
        running.appliance.wait_for("ERROR config: not reloaded, the last good one serves on:");
        running.folder.write("lab.token", "hush");
        running.reloads_once();
        assert_eq!(loke(&running), "#!ipxe\necho loke\n");
        running.is_well();
    });
}

#[test]
fn a_config_map_whose_next_version_is_broken_waits_for_the_one_after_it() {
    in_lab!(|lan| {
        let folder = folder();
        let appliance = serve_config_map(&folder, "a=1", "hush");
        let mut running = Running::of(&lan, folder, appliance);
        swap(&running.folder, "..2", "a=2", " \n");
        running.appliance.wait_for("ERROR config: not reloaded, the last good one serves on:");
        let script = running.script();
        assert!(script.contains(" a=1 ||") && script.contains("?jointoken=hush "), "{script}");
        swap(&running.folder, "..3", "a=3", "quiet");
        running.appliance.wait_for("config: reloaded from ");
        let script = running.script();
        assert!(script.contains(" a=3 ||") && script.contains("?jointoken=quiet "), "{script}");
    });
}
