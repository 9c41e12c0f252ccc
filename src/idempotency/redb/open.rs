//! Opening the file, and what to tell whoever cannot.

use std::io;
use std::path::{Path, PathBuf};

use ::redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadableDatabase, ReadableTable, TableHandle,
};

use super::RedbOptions;
use super::table::{Failure, META, SCHEMA};
use crate::{Error, ErrorKind, Result};

/// Opens the database, again and again if need be.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// How redb is set up for a store's options.
pub(super) fn builder(options: &RedbOptions) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes);
    if options.shared {
        builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    } else {
        // Reads the whole file, so that damage is found now and not under a claim.
        builder.set_check_integrity_on_open(true);
    }
    builder
}

/// Opens the file, or makes it in a directory that exists.
pub(super) fn file(path: PathBuf, options: RedbOptions) -> Opener {
    Box::new(move || {
        if !path.exists() {
            make(&path, &options)?;
        }
        builder(&options).create(&path)
    })
}

/// Makes an empty database under another name and gives it its own once it is whole: a file that a full disk or a
/// killed process left half made could not be opened again.
fn make(path: &Path, options: &RedbOptions) -> Result<(), DatabaseError> {
    let mut name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let made: Result<(), DatabaseError> = (|| {
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            Ok(()) | Err(_) => {}
        }
        builder(options).create(&new)?.close()?;
        // Unlike a rename, a link does not replace what another process made in the meantime.
        match std::fs::hard_link(&new, path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // A file system without links.
            Err(_) => Ok(std::fs::rename(&new, path)?),
            Ok(()) => Ok(()),
        }
    })();
    // Gone already after a rename; what else may fail here leaves a small file behind and harms nothing.
    drop(std::fs::remove_file(&new));
    made?;
    // A file whose directory entry is not on disk is not on disk.
    Ok(sync_directory(path)?)
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    std::fs::File::open(parent)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Checks that the database is ours and of our version, lays it out if it is empty, and counts the opening.
pub(super) fn prepare(database: &Database, place: &str) -> Result<u64> {
    let failed = |e: Failure| explain(place, "cannot be opened", &e);
    let tables = read_names(database).map_err(failed)?;
    let fresh = tables.is_empty();
    if !fresh && !tables.iter().any(|name| name == "muslin.meta") {
        let mut names = tables;
        names.truncate(3);
        return Err(refuse(format!(
            "{place} is a redb database of another program (it has the table {}); give the key store a file of its own",
            names.join(", ")
        )));
    }
    let txn = database.begin_write().map_err(|e| failed(e.into()))?;
    let owner = {
        let mut meta = match txn.open_table(META) {
            Ok(meta) => meta,
            Err(e) => return Err(failed(e.into())),
        };
        let read = |name: &str| -> Result<Option<u64>> {
            Ok(meta.get(name).map_err(|e| failed(e.into()))?.map(|value| value.value()))
        };
        let (schema, owner) = (read("schema")?, read("owner")?);
        if schema.is_none() && !fresh {
            return Err(refuse(format!(
                "{place} is damaged: it has no schema version; restore or remove the file"
            )));
        }
        if let Some(other) = schema.filter(|version| *version != SCHEMA) {
            return Err(refuse(format!(
                "{place} has schema version {other}, this build reads and writes version {SCHEMA}: use the version \
                 of muslin that wrote it, or another file"
            )));
        }
        let owner = owner.unwrap_or(0).saturating_add(1);
        meta.insert("schema", SCHEMA).map_err(|e| failed(e.into()))?;
        meta.insert("owner", owner).map_err(|e| failed(e.into()))?;
        owner
    };
    txn.commit().map_err(|e| failed(e.into()))?;
    Ok(owner)
}

fn read_names(database: &Database) -> Result<Vec<String>, Failure> {
    let txn = database.begin_read()?;
    Ok(txn.list_tables()?.map(|table| table.name().to_owned()).collect())
}

fn refuse(message: String) -> Error {
    Error::new(ErrorKind::Storage, message).retryable(false)
}

/// Whether a failure passes when somebody makes room, and leaves nothing in doubt that opening again does not settle.
pub(super) fn passes(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Io(e) if matches!(
            e.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    )
}

/// The error for a failure: `place what: why and what to do`.
pub(super) fn explain(place: &str, what: &str, failure: &Failure) -> Error {
    let (advice, retryable) = match failure {
        Failure::DatabaseAlreadyOpen => (
            "it is open already, in another process or in another store of this one: close that, or open both \
             with RedbOptions::shared"
                .to_owned(),
            true,
        ),
        Failure::LockProtocolMismatch => {
            ("a process with another version of redb has it open: close that".to_owned(), true)
        }
        Failure::UpgradeRequired(version) => (
            format!("it is in redb's old file format {version}, which this build does not read: use another file"),
            false,
        ),
        Failure::Corrupted(_) => (
            "it is damaged: restore it from a copy, or remove it and accept that duplicates of what it held have \
             their effect again"
                .to_owned(),
            false,
        ),
        Failure::Unsupported => {
            ("this system's file locks do not allow it: open it without RedbOptions::shared".to_owned(), false)
        }
        Failure::Io(e) => advise(e),
        other => (other.to_string(), false),
    };
    let error = Error::new(ErrorKind::Storage, format!("{place} {what}: {advice}")).retryable(retryable);
    match failure {
        Failure::Io(_) | Failure::Corrupted(_) => error.with_source(failure.to_string()),
        _ => error,
    }
}

fn advise(e: &io::Error) -> (String, bool) {
    let (advice, retryable) = match e.kind() {
        io::ErrorKind::NotFound => ("its directory does not exist: create it", false),
        io::ErrorKind::PermissionDenied => {
            ("this user may not read and write it: change the rights of the file and its directory", false)
        }
        io::ErrorKind::ReadOnlyFilesystem => ("its file system is read-only: choose another place", false),
        io::ErrorKind::IsADirectory => ("it is a directory: name a file in it", false),
        io::ErrorKind::NotADirectory => ("a part of its path is a file: name a directory", false),
        io::ErrorKind::StorageFull => ("the disk is full: free some space", true),
        io::ErrorKind::QuotaExceeded => ("the disk quota is used up: free some space", true),
        io::ErrorKind::FileTooLarge => ("the file may not grow further: raise the limit of file sizes", true),
        io::ErrorKind::InvalidData => {
            ("it is not a key store: name another file, or remove this one if it may go", false)
        }
        _ => return (format!("{e}; check the disk, then open it again"), true),
    };
    (advice.to_owned(), retryable)
}
