//! The order of calls when all goes well.

use orchestrator_tests::system::System;
use orchestratord_dbus::Options;

#[tokio::test]
async fn groups_ascend_and_their_components_run_side_by_side() {
    let system = System::demo().await;
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(
        system.full_trace(),
        [
            "Download G13",
            "ArtifactInstall G13",
            "NeedsArtifactReboot G13",
            "Download R456 R998",
            "ArtifactInstall R456 R998",
            "NeedsArtifactReboot R456 R998",
            "ArtifactCommit G13",
            "ArtifactCommit R456 R998",
            "Cleanup G13",
            "Cleanup R456 R998",
        ]
    );
    system.assert_all_at(2);
    system.assert_cleaned_up();
}
