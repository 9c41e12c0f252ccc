//! Any text as a properties file. It is refused with the file's name, or read; a secret is then in no warning and in no
//! `Debug` text, and every getter gives a value or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muslin::ErrorKind;
use muslin::config::Properties;
use muslin_fuzz::peak_of;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (parsed, peak) = peak_of(|| Properties::parse(&text, "file.properties"));
    // A setting costs its names' copies; the shortest line that is one is some ten bytes.
    assert!(peak <= 64 * text.len() + 16_384, "{peak} bytes for {}", text.len());
    match parsed {
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Unsupported));
            assert!(error.to_string().starts_with("file.properties, line "), "{error}");
        }
        Ok(settings) => {
            // What is shown is the same for whatever secret.
            let shown = |secret: &str| {
                let mut settings = settings.clone();
                settings.put("sasl.password", secret).unwrap();
                format!("{settings:?} {}", settings.warnings().join(" "))
            };
            assert_eq!(shown(&text), shown("other"));
            let _ = settings.amqp();
            for name in ["linger.ms", "request.timeout.ms", "amqp.heartbeat.ms"] {
                settings.millis(name).unwrap();
            }
            settings.bytes("batch.size").unwrap();
        }
    }
});
