//! Which objects lie in an archive, and must be brought back before they can be read.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::Object;
use aws_sdk_s3::types::error::InvalidObjectState;

use crate::ErrorKind;

/// The classes whose objects cannot be read as they are. Those of `GLACIER_IR` can.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// The archive that an object of a listing lies in. A listing does not tell of those of `INTELLIGENT_TIERING`.
pub(super) fn of_object(object: &Object) -> Option<String> {
    // A copy that can be read has an end; one on its way has none.
    let copy = object.restore_status().is_some_and(|status| status.restore_expiry_date.is_some());
    let class = object.storage_class()?.as_str();
    (ARCHIVES.contains(&class) && !copy).then(|| class.to_owned())
}

/// The archive that an object lies in.
pub(super) fn of_head(head: &HeadObjectOutput) -> Option<String> {
    // ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"
    if head.restore().is_some_and(|restore| restore.contains("ongoing-request=\"false\"")) {
        return None;
    }
    if let Some(tier) = head.archive_status() {
        return Some(tier.as_str().to_owned());
    }
    let class = head.storage_class()?.as_str();
    ARCHIVES.contains(&class).then(|| class.to_owned())
}

/// Why an archived object was not read.
pub(super) fn failure(state: &InvalidObjectState) -> ErrorKind {
    let tier = state.access_tier().map(|tier| tier.as_str().to_owned());
    let class = || state.storage_class().map(|class| class.as_str().to_owned());
    ErrorKind::Archived { tier: tier.or_else(class).unwrap_or_else(|| "archive".to_owned()) }
}
