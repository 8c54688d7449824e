//! Folders of certificates in a folder.

use super::*;

/// What the Secrets of a load hold, each `NAME: KEY=TEXT ...`.
fn secrets(loaded: &Loaded) -> Vec<String> {
    let shown = |(key, secret): (&ObjectKey, &std::sync::Arc<k8s_openapi::api::core::v1::Secret>)| {
        let data = secret.data.iter().flatten();
        let data: Vec<_> =
            data.map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(&value.0))).collect();
        format!("{key}: {}", data.join(" "))
    };
    loaded.objects.secrets.iter().map(shown).collect()
}

fn folder(temp: &TempDir, name: &str, files: &[(&str, &str)]) {
    let path = temp.path().join(name);
    fs::create_dir_all(&path).expect("a folder");
    for (file, text) in files {
        write(&path, file, text);
    }
}

#[test]
fn a_folder_with_a_certificate_and_its_key_is_a_secret_of_its_name() {
    let temp = temp();
    folder(&temp, "mounted", &[("tls.crt", "c"), ("tls.key", "k"), ("ca.crt", "a"), ("notes.txt", "n")]);
    folder(&temp, "certbot", &[("fullchain.pem", "c"), ("privkey.pem", "k"), ("cert.pem", "x")]);
    folder(&temp, "other", &[("a.yaml", "not: read")]);
    folder(&temp, ".hidden", &[("tls.crt", "c"), ("tls.key", "k")]);
    let loaded = opened(&temp).loaded();
    assert_eq!(loaded.problems, []);
    assert_eq!(
        secrets(&loaded),
        ["default/certbot: tls.crt=c tls.key=k", "default/mounted: ca.crt=a tls.crt=c tls.key=k"]
    );
}

#[test]
fn half_a_certificate_keeps_what_was_there_and_says_what_is_missing() {
    let temp = temp();
    folder(&temp, "site", &[("tls.crt", "c"), ("tls.key", "k")]);
    let mut followed = opened(&temp);
    fs::remove_file(temp.path().join("site/tls.key")).expect("the file is there");
    let loaded = refreshed(&mut followed);
    assert_eq!(secrets(&loaded), ["default/site: tls.crt=c tls.key=k"]);
    let problem = loaded.problems[0].to_string();
    assert!(
        problem.contains("site: has no file tls.key: put the certificate's chain in tls.crt"),
        "{problem}"
    );
    folder(&temp, "site", &[("tls.key", "other")]);
    let loaded = refreshed(&mut followed);
    assert_eq!(
        (secrets(&loaded), loaded.problems),
        (vec!["default/site: tls.crt=c tls.key=other".into()], vec![])
    );
    fs::remove_dir_all(temp.path().join("site")).expect("the folder is there");
    assert_eq!(secrets(&refreshed(&mut followed)), [""; 0]);
}

#[test]
fn what_cannot_be_a_secret_is_a_sentence() {
    let temp = temp();
    folder(&temp, "Not_A_Name", &[("tls.crt", "c"), ("tls.key", "k")]);
    let bytes = usize::try_from(CERTIFICATE_BYTES_MAX).expect("it fits");
    folder(&temp, "at", &[("tls.crt", &"x".repeat(bytes)), ("tls.key", "k")]);
    folder(&temp, "past", &[("tls.crt", &"x".repeat(bytes + 1)), ("tls.key", "k")]);
    let loaded = opened(&temp).loaded();
    assert_eq!(loaded.objects.secrets.keys().map(|key| &*key.name).collect::<Vec<_>>(), ["at"]);
    let said: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert!(said[0].contains("Not_A_Name: is no name for a Secret"), "{said:?}");
    assert!(said[1].contains("past/tls.crt: is larger than 1048576 bytes"), "{said:?}");
    assert_eq!(said.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_seen_by_events_also_through_links() {
    let (temp, archive) = (temp(), temp());
    folder(&temp, "site", &[]);
    let link = |version: &str| {
        for (name, text) in [("tls.crt", "c"), ("tls.key", "k")] {
            let file = format!("{name}.{version}");
            write(archive.path(), &file, &format!("{text}{version}"));
            // As certbot does: the new link takes the place of the old one.
            let new = temp.path().join("site/new");
            symlink(archive.path().join(file), &new).expect("a link");
            fs::rename(new, temp.path().join("site").join(name)).expect("a rename");
        }
    };
    let mut running = Running::start(temp.path());
    running.next().await;
    let mut took = Vec::new();
    for version in 0..11 {
        let began = Instant::now();
        link(&version.to_string());
        while secrets(&running.next().await)
            != [format!("default/site: tls.crt=c{version} tls.key=k{version}")]
        {}
        took.push(began.elapsed());
    }
    took.sort_unstable();
    assert!(took[5] < POLL_INTERVAL / 2, "the middle one of many says that events work: {took:?}");
}
