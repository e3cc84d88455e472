//! The file of revocations: read as a whole, and replaced as a whole, so that a crash leaves the
//! former list or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Revocation, RevocationError, RevocationSettings};

/// What stands above a list that the gateway has written.
const HEAD: &str = "# Revoked tokens. The gateway writes this file anew when its admin listener is \
                    told of more;\n# whoever edits it has the configuration reloaded then.\n\n";

/// The file as it was last read or written.
#[derive(Debug)]
pub(super) struct Kept {
    settings: RevocationSettings,
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    revoked: Vec<Revocation>,
}

impl Kept {
    /// The file and the entries that have not ended by `now`.
    pub(super) fn read(
        settings: &RevocationSettings,
        now: u64,
    ) -> Result<(Self, Vec<Revocation>), RevocationError> {
        let path = &settings.file;
        let text = read(path)?;
        let damaged = |message: &str| RevocationError::Damaged {
            path: path.clone(),
            message: message.to_owned(),
        };
        let document: Document = toml::from_str(&text).map_err(|error| damaged(error.message()))?;
        if let Some(flaw) = document.revoked.iter().find_map(Revocation::flaw) {
            return Err(damaged(flaw));
        }
        let mut entries = document.revoked;
        entries.retain(|entry| !entry.has_ended(now));
        if entries.len() > settings.most {
            return Err(RevocationError::Full(settings.most));
        }
        let kept = Self {
            settings: settings.clone(),
            text,
        };
        Ok((kept, entries))
    }

    /// Puts `entries` into the file, if it is as it was left.
    pub(super) fn write(&mut self, entries: &[Revocation]) -> Result<(), RevocationError> {
        let RevocationSettings { file: path, most } = &self.settings;
        if entries.len() > *most {
            return Err(RevocationError::Full(*most));
        }
        if read(path)? != self.text {
            return Err(RevocationError::Changed { path: path.clone() });
        }
        let document = Document {
            revoked: entries.to_vec(),
        };
        let unwritable = |source| RevocationError::Unwritable {
            path: path.clone(),
            source,
        };
        let text =
            toml::to_string(&document).map_err(|error| unwritable(io::Error::other(error)))?;
        let text = format!("{HEAD}{text}");
        replace(path, &text).map_err(unwritable)?;
        self.text = text;
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, RevocationError> {
    fs::read_to_string(path).map_err(|source| RevocationError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// Nobody sees half a file, and what is there when this returns is there after a power failure.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // Where a link leads, or the link itself would be replaced.
    let path = path.canonicalize()?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.set_permissions(fs::metadata(&path)?.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(folder)?.sync_all()
}
