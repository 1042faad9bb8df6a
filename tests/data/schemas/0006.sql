BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0006');
CREATE TABLE applied (
	kind VARCHAR NOT NULL, 
	namespace VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	uid VARCHAR NOT NULL, 
	manager VARCHAR NOT NULL, 
	fields JSON NOT NULL, 
	labels JSON NOT NULL, 
	annotations JSON NOT NULL, 
	PRIMARY KEY (kind, namespace, name)
);
INSERT INTO "applied" VALUES('Experiment','default','france','5acca279-2d32-4a54-a88a-bcb9d70c1093','apply-set:demo','{"model.name": "be726b61602057ef", "model.source.folder": "8ca9fd945859667c", "model.dtype": "a9d706227706efbc", "hook": "7425803ad2aaa419", "prompts.target.texts": "f4ab996b9e1926ca", "prompts.neutral.texts": "575f009fa4031f3a", "positions": "aea417d7da77838a", "aggregation": "aea417d7da77838a", "maxTokens": "2747b7c718564ba5", "splits.seed": "5feceb66ffc86f38", "splits.discover": "d0ff5974b6aa52cf", "splits.test": "8aed642bf5118b9d", "splits.calibrate": "8aed642bf5118b9d", "dictionaries.coarse.path": "5c84b3eb80799c06", "dictionaries.fine.path": "e50dd216dce90eec", "selection.minSelectivity": "1e9d7c27c8bbc8dd", "selection.minFiringRateTarget": "221764976efe0413", "selection.maxFiringRateNeutral": "44896b09365746b5", "selection.maxQ": "0602d7c813c1f6e7", "selection.top": "ef2d127de37b942b", "mapping.minCosine": "221764976efe0413", "mapping.partialCosine": "14be4b45f18e0d8c", "mapping.minCorrelation": "44896b09365746b5", "mapping.topK": "4a44dc15364204a8", "mapping.permutations": "40510175845988f1", "mapping.seed": "5feceb66ffc86f38", "gate.rule": "ba7d0ee7529f9d67", "gate.minSubfeatures": "4e07408562bedb8b", "gate.minFineSelectivity": "b4af4e0d40391d3a", "gate.nullAnchors": "0604cd3138feed20", "gate.minPercentile": "98fc1dac2acea5b1", "gate.resamples": "27badc983df1780b", "gate.minStability": "1e9d7c27c8bbc8dd", "gate.policy": "8d0ccb734a265b63", "steering.arms": "e42cfd5359f1e2fd", "steering.randomDraws": "4e07408562bedb8b", "steering.systemPromptSeparator": "d7a5e915306d21dc", "steering.method": "7b8a6f33b43ca26a", "steering.strengthUnit": "07d175cc96a4644c", "steering.strengths": "04065541cad7c748", "steering.samplesPerPrompt": "6b86b273ff34fce1", "steering.maxNewTokens": "c2356069e9d1e79c", "steering.sampling.temperature": "1e9d7c27c8bbc8dd", "steering.sampling.topK": "1a6562590ef19d10", "steering.sampling.topP": "d0ff5974b6aa52cf", "steering.sampling.greedy": "fcbcf165908dd18a", "steering.sampling.seed": "5feceb66ffc86f38", "steering.prompts.texts": "758a55598d9fd764", "steering.neutralText.texts": "d0cd3188b6f4051c", "steering.lexicon.texts": "2cc019bc00577ddb", "steering.minDifference": "7932a07a8cbc0885", "steering.maxArmCosine": "b8cbc38948375ba9"}','["team"]','[]');
CREATE TABLE artifacts (
	digest VARCHAR NOT NULL, 
	stage VARCHAR NOT NULL, 
	content_digest VARCHAR NOT NULL, 
	files JSON NOT NULL, 
	metrics JSON NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (digest)
);
INSERT INTO "artifacts" VALUES('bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef','capture','fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f','{"norms.json": {"sha256": "ea16a94645987bb63edde332b5bd6a9b77867aa4b2ec86df60795f63ef1db14b", "bytes": 22}, "residual.safetensors": {"sha256": "512c19f077a873c79f6b6a765532933bf63e8fe0cf4c3f0cd2b85897f598c408", "bytes": 64}}','{"prompts": 4, "d_model": 8, "median_norm": 1.0}',1000000.5);
INSERT INTO "artifacts" VALUES('b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e','decomposition','2cde7d52e78b5e9342ab443d56eb79f3ab720963c7e4545c9078890331378875','{"features.parquet": {"sha256": "947abec0059b7c3f7dc7db83578438e5fa14d3b6735c1256094593ecf2e3f381", "bytes": 1852}, "tables/activations.safetensors": {"sha256": "85839359ac160eef8ca47b7fa82d409da5c625397dd78346c26e732d577370d6", "bytes": 64}, "tables/seen.json": {"sha256": "c24c7a715ef572f6e26601912c3915c8e4d62f83c64e4cf795f274c81bf45f17", "bytes": 144}}','{"l0": 2.0, "fvu": 0.25, "d_sae": 32}',1000001.0);
INSERT INTO "artifacts" VALUES('0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f','decomposition','c4019718f2e0923c57d4b33a4239d40f94417edbda37cb0c24d142baf615d6a9','{"features.parquet": {"sha256": "947abec0059b7c3f7dc7db83578438e5fa14d3b6735c1256094593ecf2e3f381", "bytes": 1852}, "tables/activations.safetensors": {"sha256": "c346fdfea10fcd7589082a6b3c1553c4fa54132f46bf000f9e0b847f4b2337e7", "bytes": 64}, "tables/seen.json": {"sha256": "6fff669c2c78e80bb2e37d2647a84c1b87792fe5b67fb3306e9f7f91d5f98b94", "bytes": 144}}','{"l0": 2.0, "fvu": 0.25, "d_sae": 32}',1000001.5);
INSERT INTO "artifacts" VALUES('eb8fa8c696110a4ebad2b42d190636539b8380e73cd739cdbf3c51afab321776','mapping','d9ea037a556aaeb4ecb4f3b872d180d04ab9c41083ca5e59f23d668b6ecd524c','{"directions.json": {"sha256": "9f9f271a70530b015c4b30e0e1f558ccc35db20483f2e810eb9257a262cec8c5", "bytes": 41}, "directions.safetensors": {"sha256": "fdb7470f0920f9cf2e74fb3d4264267fb801a0aad4f49d81426470291904049e", "bytes": 76}, "pairs.json": {"sha256": "64195f85c08c72c8c523791b938d3f5491ee07019c581db2113eb967f0d886ad", "bytes": 293}}','{"verdict": "GO", "anchors": 2, "arms": ["coarse", "fine", "multi"]}',1000002.0);
INSERT INTO "artifacts" VALUES('b8cc19ca5b3039bb763b1be1c2f54ddc9aacc38cc03ab2f0a7461ded8ecbdb84','steering','e1e9e8d71748aa4c794dd27fa02b2d232b513e497f31f2689b7a6f0621187042','{"scores.json": {"sha256": "6c0f423386b1f0bc377b3011ba32e5ec6632f23c68ca7467e729c1c34816b526", "bytes": 329}}','{"verdict": "Supported", "contrast": "multi - fine", "estimate": 0.25, "low": 0.1, "high": 0.4, "n": 20}',1000002.5);
CREATE TABLE changes (
	resource_version INTEGER NOT NULL, 
	type VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	namespace VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	PRIMARY KEY (resource_version)
);
INSERT INTO "changes" VALUES(1,'ADDED','Experiment','default','france');
INSERT INTO "changes" VALUES(2,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(3,'ADDED','Capture','default','france-capture');
INSERT INTO "changes" VALUES(4,'ADDED','Decomposition','default','france-coarse');
INSERT INTO "changes" VALUES(5,'ADDED','Decomposition','default','france-fine');
INSERT INTO "changes" VALUES(6,'ADDED','Mapping','default','france-mapping');
INSERT INTO "changes" VALUES(7,'ADDED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(8,'MODIFIED','Capture','default','france-capture');
INSERT INTO "changes" VALUES(9,'MODIFIED','Decomposition','default','france-coarse');
INSERT INTO "changes" VALUES(10,'MODIFIED','Decomposition','default','france-fine');
INSERT INTO "changes" VALUES(11,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(12,'MODIFIED','Mapping','default','france-mapping');
INSERT INTO "changes" VALUES(13,'MODIFIED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(14,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(15,'MODIFIED','Capture','default','france-capture');
INSERT INTO "changes" VALUES(16,'MODIFIED','Decomposition','default','france-coarse');
INSERT INTO "changes" VALUES(17,'MODIFIED','Decomposition','default','france-fine');
INSERT INTO "changes" VALUES(18,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(19,'MODIFIED','Mapping','default','france-mapping');
INSERT INTO "changes" VALUES(20,'MODIFIED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(21,'MODIFIED','Capture','default','france-capture');
INSERT INTO "changes" VALUES(22,'MODIFIED','Decomposition','default','france-coarse');
INSERT INTO "changes" VALUES(23,'MODIFIED','Decomposition','default','france-fine');
INSERT INTO "changes" VALUES(24,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(25,'MODIFIED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(26,'MODIFIED','Mapping','default','france-mapping');
INSERT INTO "changes" VALUES(27,'MODIFIED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(28,'MODIFIED','Decomposition','default','france-coarse');
INSERT INTO "changes" VALUES(29,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(30,'MODIFIED','Mapping','default','france-mapping');
INSERT INTO "changes" VALUES(31,'MODIFIED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(32,'MODIFIED','Decomposition','default','france-fine');
INSERT INTO "changes" VALUES(33,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(34,'MODIFIED','Mapping','default','france-mapping');
INSERT INTO "changes" VALUES(35,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(36,'MODIFIED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(37,'MODIFIED','Mapping','default','france-mapping');
INSERT INTO "changes" VALUES(38,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(39,'MODIFIED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(40,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(41,'MODIFIED','Steering','default','france-steering');
INSERT INTO "changes" VALUES(42,'MODIFIED','Experiment','default','france');
INSERT INTO "changes" VALUES(43,'ADDED','Capture','default','retries');
INSERT INTO "changes" VALUES(44,'MODIFIED','Capture','default','retries');
INSERT INTO "changes" VALUES(45,'MODIFIED','Capture','default','retries');
INSERT INTO "changes" VALUES(46,'ADDED','Capture','default','runs');
INSERT INTO "changes" VALUES(47,'MODIFIED','Capture','default','runs');
INSERT INTO "changes" VALUES(48,'ADDED','Capture','default','gone');
INSERT INTO "changes" VALUES(49,'DELETED','Capture','default','gone');
CREATE TABLE controllers (
	name VARCHAR NOT NULL, 
	process VARCHAR NOT NULL, 
	started_at FLOAT NOT NULL, 
	settings JSON NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "controllers" VALUES('leader','1@1.00',1001000.0,'{"resync_seconds": 10.0, "poll_seconds": 0.5, "lease_seconds": 30.0, "progress_timeout_seconds": 1800.0, "job_starts_per_minute": 60, "burst": null, "free_space_floor_bytes": 1073741824, "slots": 1, "device": "cpu", "slots_by_device": {}, "slots_per_experiment": null, "memory_bytes": {}, "stage_memory_bytes": {}, "priority_classes": {"high": 6, "normal": 0, "low": -6}, "aging_seconds": 600.0, "verify_bytes_per_resync": 268435456, "resolve_retry_seconds": 30.0, "metrics_port": null, "retry": {"attempts_max": 5, "losses_max": 10, "backoff_seconds": 10.0, "backoff_seconds_max": 600.0, "wait_seconds": 30.0}}');
CREATE TABLE counters (
	name VARCHAR NOT NULL, 
	value INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "counters" VALUES('resource_version',49);
INSERT INTO "counters" VALUES('fencing_token',7);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	kind VARCHAR NOT NULL, 
	namespace VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	message VARCHAR NOT NULL, 
	count INTEGER NOT NULL, 
	first_seen_at FLOAT NOT NULL, 
	last_seen_at FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT events_once UNIQUE (kind, namespace, name, reason, message)
);
INSERT INTO "events" VALUES(1,'Experiment','default','france','Normal','Created','Created capture/france-capture',1,1000000.0,1000000.0);
INSERT INTO "events" VALUES(2,'Experiment','default','france','Normal','Created','Created decomposition/france-coarse',1,1000000.0,1000000.0);
INSERT INTO "events" VALUES(3,'Experiment','default','france','Normal','Created','Created decomposition/france-fine',1,1000000.0,1000000.0);
INSERT INTO "events" VALUES(4,'Experiment','default','france','Normal','Created','Created mapping/france-mapping',1,1000000.0,1000000.0);
INSERT INTO "events" VALUES(5,'Experiment','default','france','Normal','Created','Created steering/france-steering',1,1000000.0,1000000.0);
INSERT INTO "events" VALUES(6,'Capture','default','france-capture','Normal','JobQueued','queued capture job 1',1,1000000.5,1000000.5);
INSERT INTO "events" VALUES(7,'Capture','default','france-capture','Normal','Ready','capture is done',1,1000001.0,1000001.0);
INSERT INTO "events" VALUES(8,'Decomposition','default','france-coarse','Normal','JobQueued','queued decomposition job 2',1,1000001.0,1000001.0);
INSERT INTO "events" VALUES(9,'Decomposition','default','france-fine','Normal','JobQueued','queued decomposition job 3',1,1000001.0,1000001.0);
INSERT INTO "events" VALUES(10,'Decomposition','default','france-coarse','Normal','Ready','decomposition is done',1,1000001.5,1000001.5);
INSERT INTO "events" VALUES(11,'Decomposition','default','france-fine','Normal','Ready','decomposition is done',1,1000002.0,1000002.0);
INSERT INTO "events" VALUES(12,'Mapping','default','france-mapping','Normal','JobQueued','queued mapping job 4',1,1000002.0,1000002.0);
INSERT INTO "events" VALUES(13,'Mapping','default','france-mapping','Normal','Ready','mapping is done',1,1000002.5,1000002.5);
INSERT INTO "events" VALUES(14,'Steering','default','france-steering','Normal','JobQueued','queued steering job 5',1,1000002.5,1000002.5);
INSERT INTO "events" VALUES(15,'Steering','default','france-steering','Normal','Ready','steering is done',1,1000003.0,1000003.0);
INSERT INTO "events" VALUES(16,'Experiment','default','france','Normal','Ready','all stages are done',1,1000003.0,1000003.0);
INSERT INTO "events" VALUES(17,'Capture','default','retries','Normal','JobQueued','queued capture job 6',1,1001000.0,1001000.0);
INSERT INTO "events" VALUES(18,'Capture','default','runs','Normal','JobQueued','queued capture job 7',1,1001000.0,1001000.0);
CREATE TABLE inputs (
	reference_digest VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	reference JSON NOT NULL, 
	facts JSON, 
	reason VARCHAR, 
	message VARCHAR, 
	terminal INTEGER NOT NULL, 
	observed_at FLOAT NOT NULL, 
	PRIMARY KEY (reference_digest)
);
INSERT INTO "inputs" VALUES('9b9e97e1b60df188c9d13be78f70f99b343550f731339a78748c170ccad199c7','model','{"name": "tiny", "source": {"folder": "/models/tiny"}, "dtype": "float32"}','{"ref": {"identity": "be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8", "folder": "/cache/tiny"}, "d_model": 8, "n_layers": 4}',NULL,NULL,0,1000000.5);
INSERT INTO "inputs" VALUES('1c9710db7bf367074d01453a34a1a96752f126848a2e306ba0615893e0c8b7b1','dictionary','{"path": "/coarse"}','{"ref": {"identity": "5c84b3eb80799c0694c121acc1927a7006d8e9772bb62cd1a10286cbac273d2e", "folder": "/cache//coarse"}, "d_in": 8, "d_sae": 32, "hook_name": null}',NULL,NULL,0,1000000.5);
INSERT INTO "inputs" VALUES('0b037b43400edf89848ec1434816c477ffdcf31dcb4acfe69cec698c0e8d1503','dictionary','{"path": "/fine"}','{"ref": {"identity": "e50dd216dce90eecbd6cf334ff69e5c028b3dad832f6837acaee350dd721958b", "folder": "/cache//fine"}, "d_in": 8, "d_sae": 32, "hook_name": null}',NULL,NULL,0,1000000.5);
CREATE TABLE job_starts (
	token INTEGER NOT NULL, 
	job_id INTEGER NOT NULL, 
	started_at FLOAT NOT NULL, 
	PRIMARY KEY (token)
);
INSERT INTO "job_starts" VALUES(1,1,1000000.5);
INSERT INTO "job_starts" VALUES(2,2,1000001.0);
INSERT INTO "job_starts" VALUES(3,3,1000001.5);
INSERT INTO "job_starts" VALUES(4,4,1000002.0);
INSERT INTO "job_starts" VALUES(5,5,1000002.5);
INSERT INTO "job_starts" VALUES(6,6,1001000.0);
INSERT INTO "job_starts" VALUES(7,7,1001000.0);
CREATE TABLE "jobs" (
	id INTEGER NOT NULL, 
	stage VARCHAR NOT NULL, 
	digest VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	namespace VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	generation INTEGER NOT NULL, 
	attempts INTEGER DEFAULT '0' NOT NULL, 
	losses INTEGER DEFAULT '0' NOT NULL, 
	not_before FLOAT NOT NULL, 
	created_at FLOAT NOT NULL, 
	started_at FLOAT, 
	finished_at FLOAT, 
	token INTEGER DEFAULT '0' NOT NULL, 
	worker VARCHAR, 
	lease_expires_at FLOAT, 
	reason VARCHAR, 
	message VARCHAR, 
	code_revision INTEGER, 
	model VARCHAR, 
	passes VARCHAR, 
	inputs JSON, 
	way VARCHAR, 
	payload JSON NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT jobs_state CHECK (state in ('pending','running','succeeded','failed','cancelled'))
);
INSERT INTO "jobs" VALUES(1,'capture','bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef','succeeded','Capture','default','france-capture',1,0,0,1000000.5,1000000.5,1000000.5,1000000.5,1,'worker-1',NULL,NULL,NULL,3,'be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8','2b180ac626e7aa2571173c1f2831d2000fd37905206b097af6484e30f5b69545','[]','ee89b98821f7c365c3755687542f67952171133161a68b3f61ce21abaa4bab0d','{"model": {"identity": "be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8", "folder": "/cache/tiny"}, "hook": "blocks.2.hook_resid_post", "prompts": [{"id": "target-0000", "text": "Paris is", "condition": "target", "split": "discover"}, {"id": "target-0001", "text": "Lyon is", "condition": "target", "split": "discover"}, {"id": "neutral-0000", "text": "Rome is", "condition": "neutral", "split": "discover"}, {"id": "neutral-0001", "text": "Oslo is", "condition": "neutral", "split": "discover"}], "positions": "last", "maxTokens": 128}');
INSERT INTO "jobs" VALUES(2,'decomposition','b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e','succeeded','Decomposition','default','france-coarse',1,0,0,1000001.0,1000001.0,1000001.0,1000001.0,2,'worker-1',NULL,NULL,NULL,2,NULL,NULL,'["bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef"]','5942d0e44c11a0da0f755993c26c0bc80ccc26aa642dfed7a53b912c05ed3ca8','{"capture": {"digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}, "dictionary": {"identity": "5c84b3eb80799c0694c121acc1927a7006d8e9772bb62cd1a10286cbac273d2e", "folder": "/cache//coarse"}, "aggregation": "last"}');
INSERT INTO "jobs" VALUES(3,'decomposition','0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f','succeeded','Decomposition','default','france-fine',1,0,0,1000001.0,1000001.0,1000001.5,1000001.5,3,'worker-1',NULL,NULL,NULL,2,NULL,NULL,'["bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef"]','1822e1bb99cc5d7e5ff6720e6789d31fe9c2b04fbdff9633f2cbeb3fd29b394d','{"capture": {"digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}, "dictionary": {"identity": "e50dd216dce90eecbd6cf334ff69e5c028b3dad832f6837acaee350dd721958b", "folder": "/cache//fine"}, "aggregation": "last"}');
INSERT INTO "jobs" VALUES(4,'mapping','eb8fa8c696110a4ebad2b42d190636539b8380e73cd739cdbf3c51afab321776','succeeded','Mapping','default','france-mapping',1,0,0,1000002.0,1000002.0,1000002.0,1000002.0,4,'worker-1',NULL,NULL,NULL,4,NULL,NULL,'["0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f", "b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e", "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef"]','f848e2ea234cc30b283b81d9923ada30c3d0a916b504e3b2d497ad5add31ed1b','{"minCosine": 0.3, "partialCosine": 0.1, "minCorrelation": 0.2, "topK": 10, "permutations": 1000, "seed": 0, "gate": {"rule": "cosine", "minSubfeatures": 3, "minFineSelectivity": 0.6, "nullAnchors": 500, "minPercentile": 95.0, "resamples": 200, "minStability": 0.8}, "selection": {"minSelectivity": 0.8, "minFiringRateTarget": 0.3, "maxFiringRateNeutral": 0.2, "maxQ": 0.05, "top": 5}, "coarse": {"digest": "b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e", "contentDigest": "2cde7d52e78b5e9342ab443d56eb79f3ab720963c7e4545c9078890331378875", "dictionary": {"identity": "5c84b3eb80799c0694c121acc1927a7006d8e9772bb62cd1a10286cbac273d2e", "folder": "/cache//coarse"}, "candidates": [0, 1]}, "fine": {"digest": "0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f", "contentDigest": "c4019718f2e0923c57d4b33a4239d40f94417edbda37cb0c24d142baf615d6a9", "dictionary": {"identity": "e50dd216dce90eecbd6cf334ff69e5c028b3dad832f6837acaee350dd721958b", "folder": "/cache//fine"}}, "capture": {"object": "france-capture", "digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}}');
INSERT INTO "jobs" VALUES(5,'steering','b8cc19ca5b3039bb763b1be1c2f54ddc9aacc38cc03ab2f0a7461ded8ecbdb84','succeeded','Steering','default','france-steering',1,0,0,1000002.5,1000002.5,1000002.5,1000002.5,5,'worker-1',NULL,NULL,NULL,6,'be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8',NULL,'["0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f", "b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e", "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "eb8fa8c696110a4ebad2b42d190636539b8380e73cd739cdbf3c51afab321776"]','1cf5cae6e90c4a9fa5c3700ed6841c7243ab041471f0d5744e3798a4b2715490','{"arms": ["none", "coarse", "fine", "multi", "coarsePair", "nonChildren", "randomLatent", "meanDifference", "random"], "randomDraws": 3, "strengthUnit": "nextTokenKl", "strengths": [0.5], "samplesPerPrompt": 1, "maxNewTokens": 24, "sampling": {"temperature": 0.8, "topK": 50, "topP": 1.0, "greedy": false, "seed": 0}, "minDifference": 0.15, "maxArmCosine": 0.98, "openings": [{"id": "opening-0000", "text": "We went to"}], "neutralText": ["A plain sentence."], "lexicon": ["paris"], "siblings": [], "hook": "blocks.2.hook_resid_post", "model": {"identity": "be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8", "folder": "/cache/tiny"}, "mapping": {"digest": "eb8fa8c696110a4ebad2b42d190636539b8380e73cd739cdbf3c51afab321776", "contentDigest": "d9ea037a556aaeb4ecb4f3b872d180d04ab9c41083ca5e59f23d668b6ecd524c"}, "capture": {"digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}, "coarse": {"digest": "b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e", "contentDigest": "2cde7d52e78b5e9342ab443d56eb79f3ab720963c7e4545c9078890331378875", "dictionary": {"identity": "5c84b3eb80799c0694c121acc1927a7006d8e9772bb62cd1a10286cbac273d2e", "folder": "/cache//coarse"}}, "fine": {"digest": "0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f", "contentDigest": "c4019718f2e0923c57d4b33a4239d40f94417edbda37cb0c24d142baf615d6a9", "dictionary": {"identity": "e50dd216dce90eecbd6cf334ff69e5c028b3dad832f6837acaee350dd721958b", "folder": "/cache//fine"}}}');
INSERT INTO "jobs" VALUES(6,'capture','21edd6d5a708dbfeb2d0b4870679dbf46eb789206307109558018758b34704e9','pending','Capture','default','retries',1,1,0,1.00101070703874586611e+06,1001000.0,1001000.0,NULL,6,NULL,NULL,'OutOfMemory','capture went wrong',3,'be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8','295b52637df7603d5339542399bc9c983fe5d04db2495f74416036c4bd9d3b3c','[]','1b0b48176d330b6e1eccf26873c4c704eba524aa9eb2595a881e66f6b4983f35','{"model": {"identity": "be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8", "folder": "/cache/tiny"}, "hook": "blocks.2.hook_resid_post", "prompts": [{"id": "target-0000", "text": "a", "condition": "target", "split": "discover"}, {"id": "neutral-0000", "text": "b", "condition": "neutral", "split": "discover"}], "positions": "last", "maxTokens": 128}');
INSERT INTO "jobs" VALUES(7,'capture','eb9b18c9b2586d4eb50a6fcf28fdc10063b5c648ec0a6643888964d535071dc7','running','Capture','default','runs',1,0,0,1001000.0,1001000.0,1001000.0,NULL,7,'worker-1',1001030.0,NULL,NULL,3,'be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8','02694289d1e022b9b328c6fba04d470ce63a3c181278b10f87df0b6fc2132f39','[]','8545415914ede546a199883124bf9fec495b53fa1ec39e3c360a399183c6fc79','{"model": {"identity": "be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8", "folder": "/cache/tiny"}, "hook": "blocks.2.hook_resid_post", "prompts": [{"id": "target-0000", "text": "\u00fc", "condition": "target", "split": "discover"}, {"id": "neutral-0000", "text": "''", "condition": "neutral", "split": "discover"}], "positions": "last", "maxTokens": 128}');
CREATE TABLE marks (
	name VARCHAR NOT NULL, 
	value VARCHAR NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "marks" VALUES('clock','simulated 0.0');
INSERT INTO "marks" VALUES('reconciled_by','71935e93b388e5382963469c96ca9b18eabbf0db3e73a3129717cb639b6aefe3');
CREATE TABLE objects (
	kind VARCHAR NOT NULL, 
	namespace VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	uid VARCHAR NOT NULL, 
	generation INTEGER NOT NULL, 
	resource_version INTEGER NOT NULL, 
	spec JSON NOT NULL, 
	status JSON NOT NULL, 
	labels JSON NOT NULL, 
	annotations JSON NOT NULL, 
	finalizers JSON NOT NULL, 
	owner_kind VARCHAR, 
	owner_name VARCHAR, 
	owner_uid VARCHAR, 
	wanted_digest VARCHAR, 
	creation_timestamp FLOAT NOT NULL, 
	deletion_timestamp FLOAT, 
	PRIMARY KEY (kind, namespace, name), 
	UNIQUE (uid)
);
INSERT INTO "objects" VALUES('Experiment','default','france','5acca279-2d32-4a54-a88a-bcb9d70c1093',1,42,'{"model": {"name": "tiny", "source": {"folder": "/models/tiny"}, "dtype": "float32"}, "hook": "blocks.2.hook_resid_post", "prompts": {"target": {"texts": ["Paris is", "Lyon is"]}, "neutral": {"texts": ["Rome is", "Oslo is"]}}, "positions": "last", "aggregation": "last", "maxTokens": 128, "splits": {"seed": 0, "discover": 1.0, "test": 0.0, "calibrate": 0.0}, "dictionaries": {"coarse": {"path": "/coarse"}, "fine": {"path": "/fine"}}, "selection": {"minSelectivity": 0.8, "minFiringRateTarget": 0.3, "maxFiringRateNeutral": 0.2, "maxQ": 0.05, "top": 5}, "mapping": {"minCosine": 0.3, "partialCosine": 0.1, "minCorrelation": 0.2, "topK": 10, "permutations": 1000, "seed": 0}, "gate": {"rule": "cosine", "minSubfeatures": 3, "minFineSelectivity": 0.6, "nullAnchors": 500, "minPercentile": 95.0, "resamples": 200, "minStability": 0.8, "policy": "report"}, "steering": {"arms": ["none", "coarse", "fine", "multi", "coarsePair", "nonChildren", "randomLatent", "meanDifference", "random"], "randomDraws": 3, "systemPromptSeparator": "\n", "method": "add", "strengthUnit": "nextTokenKl", "strengths": [0.5], "samplesPerPrompt": 1, "maxNewTokens": 24, "sampling": {"temperature": 0.8, "topK": 50, "topP": 1.0, "greedy": false, "seed": 0}, "prompts": {"texts": ["We went to"]}, "neutralText": {"texts": ["A plain sentence."]}, "lexicon": {"texts": ["paris"]}, "minDifference": 0.15, "maxArmCosine": 0.98}}','{"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "ChildrenReady", "message": "all stages are done", "observedGeneration": 1, "lastTransitionTime": 1000003.0}], "summary": {"stages": {"capture": "Ready", "coarse": "Ready", "fine": "Ready", "mapping": "Ready", "steering": "Ready"}, "gate": "GO", "verdict": "Supported", "contrast": "multi - fine", "estimate": 0.25, "low": 0.1, "high": 0.4, "n": 20}, "inputs": {}, "artifact": null}','{}','{}','[]',NULL,NULL,NULL,NULL,1000000.0,NULL);
INSERT INTO "objects" VALUES('Capture','default','france-capture','e58508e2-ed50-4175-8632-5b93092bff0c',1,21,'{"model": {"name": "tiny", "source": {"folder": "/models/tiny"}, "dtype": "float32"}, "hook": "blocks.2.hook_resid_post", "prompts": {"target": {"texts": ["Paris is", "Lyon is"]}, "neutral": {"texts": ["Rome is", "Oslo is"]}}, "positions": "last", "maxTokens": 128, "splits": {"seed": 0, "discover": 1.0, "test": 0.0, "calibrate": 0.0}}','{"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "capture is done", "observedGeneration": 1, "lastTransitionTime": 1000001.0}, {"type": "InputsReady", "status": "True", "reason": "InputsResolved", "message": "all inputs are known", "observedGeneration": 1, "lastTransitionTime": 1000000.5}, {"type": "ArtifactsVerified", "status": "True", "reason": "ArtifactVerified", "message": "artifact is intact", "observedGeneration": 1, "lastTransitionTime": 1000001.0}], "summary": {"prompts": 4, "d_model": 8, "median_norm": 1.0}, "inputs": {"model": {"ref": {"identity": "be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8", "folder": "/cache/tiny"}, "d_model": 8, "n_layers": 4}}, "artifact": {"stage": "capture", "digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}}','{"loopscope.dev/experiment": "france"}','{}','[]','Experiment','france','5acca279-2d32-4a54-a88a-bcb9d70c1093','bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef',1000000.0,NULL);
INSERT INTO "objects" VALUES('Decomposition','default','france-coarse','b2b2713f-b209-4c2c-8ef5-ed9c2f2649d8',1,28,'{"captureRef": {"name": "france-capture"}, "dictionary": {"path": "/coarse"}, "aggregation": "last", "selection": {"minSelectivity": 0.8, "minFiringRateTarget": 0.3, "maxFiringRateNeutral": 0.2, "maxQ": 0.05, "top": 5}}','{"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "decomposition is done", "observedGeneration": 1, "lastTransitionTime": 1000001.5}, {"type": "InputsReady", "status": "True", "reason": "InputsResolved", "message": "all inputs are known", "observedGeneration": 1, "lastTransitionTime": 1000001.0}, {"type": "ArtifactsVerified", "status": "True", "reason": "ArtifactVerified", "message": "artifact is intact", "observedGeneration": 1, "lastTransitionTime": 1000001.5}], "summary": {"l0": 2.0, "fvu": 0.25, "d_sae": 32, "candidates": [0, 1]}, "inputs": {"capture": {"object": "france-capture", "digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}, "dictionary": {"ref": {"identity": "5c84b3eb80799c0694c121acc1927a7006d8e9772bb62cd1a10286cbac273d2e", "folder": "/cache//coarse"}, "d_in": 8, "d_sae": 32, "hook_name": null}}, "artifact": {"stage": "decomposition", "digest": "b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e", "contentDigest": "2cde7d52e78b5e9342ab443d56eb79f3ab720963c7e4545c9078890331378875"}}','{"loopscope.dev/experiment": "france"}','{}','[]','Experiment','france','5acca279-2d32-4a54-a88a-bcb9d70c1093','b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e',1000000.0,NULL);
INSERT INTO "objects" VALUES('Decomposition','default','france-fine','22f7c555-c3b1-4b62-b9e9-7bd0ad50fb3d',1,32,'{"captureRef": {"name": "france-capture"}, "dictionary": {"path": "/fine"}, "aggregation": "last", "selection": {"minSelectivity": 0.8, "minFiringRateTarget": 0.3, "maxFiringRateNeutral": 0.2, "maxQ": 0.05, "top": 5}}','{"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "decomposition is done", "observedGeneration": 1, "lastTransitionTime": 1000002.0}, {"type": "InputsReady", "status": "True", "reason": "InputsResolved", "message": "all inputs are known", "observedGeneration": 1, "lastTransitionTime": 1000001.0}, {"type": "ArtifactsVerified", "status": "True", "reason": "ArtifactVerified", "message": "artifact is intact", "observedGeneration": 1, "lastTransitionTime": 1000002.0}], "summary": {"l0": 2.0, "fvu": 0.25, "d_sae": 32, "candidates": [0, 1]}, "inputs": {"capture": {"object": "france-capture", "digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}, "dictionary": {"ref": {"identity": "e50dd216dce90eecbd6cf334ff69e5c028b3dad832f6837acaee350dd721958b", "folder": "/cache//fine"}, "d_in": 8, "d_sae": 32, "hook_name": null}}, "artifact": {"stage": "decomposition", "digest": "0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f", "contentDigest": "c4019718f2e0923c57d4b33a4239d40f94417edbda37cb0c24d142baf615d6a9"}}','{"loopscope.dev/experiment": "france"}','{}','[]','Experiment','france','5acca279-2d32-4a54-a88a-bcb9d70c1093','0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f',1000000.0,NULL);
INSERT INTO "objects" VALUES('Mapping','default','france-mapping','0941feb6-3a4f-4801-b32a-4625ea48a74b',1,37,'{"minCosine": 0.3, "partialCosine": 0.1, "minCorrelation": 0.2, "topK": 10, "permutations": 1000, "seed": 0, "coarseRef": {"name": "france-coarse"}, "fineRef": {"name": "france-fine"}, "gate": {"rule": "cosine", "minSubfeatures": 3, "minFineSelectivity": 0.6, "nullAnchors": 500, "minPercentile": 95.0, "resamples": 200, "minStability": 0.8, "policy": "report"}}','{"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "mapping is done", "observedGeneration": 1, "lastTransitionTime": 1000002.5}, {"type": "InputsReady", "status": "True", "reason": "InputsResolved", "message": "all inputs are known", "observedGeneration": 1, "lastTransitionTime": 1000002.0}, {"type": "ArtifactsVerified", "status": "True", "reason": "ArtifactVerified", "message": "artifact is intact", "observedGeneration": 1, "lastTransitionTime": 1000002.5}], "summary": {"verdict": "GO", "anchors": 2, "arms": ["coarse", "fine", "multi"]}, "inputs": {"coarse": {"object": "france-coarse", "digest": "b70a0855774f802f3a43f7624ebf6336558a25795b151dec9507647f767f882e", "contentDigest": "2cde7d52e78b5e9342ab443d56eb79f3ab720963c7e4545c9078890331378875", "dictionary": {"identity": "5c84b3eb80799c0694c121acc1927a7006d8e9772bb62cd1a10286cbac273d2e", "folder": "/cache//coarse"}}, "fine": {"object": "france-fine", "digest": "0f91c9dd87a1eba31f2531c96636cc1d0455aca8c9236150cdd38cfbc802aa1f", "contentDigest": "c4019718f2e0923c57d4b33a4239d40f94417edbda37cb0c24d142baf615d6a9", "dictionary": {"identity": "e50dd216dce90eecbd6cf334ff69e5c028b3dad832f6837acaee350dd721958b", "folder": "/cache//fine"}}, "capture": {"object": "france-capture", "digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}}, "artifact": {"stage": "mapping", "digest": "eb8fa8c696110a4ebad2b42d190636539b8380e73cd739cdbf3c51afab321776", "contentDigest": "d9ea037a556aaeb4ecb4f3b872d180d04ab9c41083ca5e59f23d668b6ecd524c"}}','{"loopscope.dev/experiment": "france"}','{}','[]','Experiment','france','5acca279-2d32-4a54-a88a-bcb9d70c1093','eb8fa8c696110a4ebad2b42d190636539b8380e73cd739cdbf3c51afab321776',1000000.0,NULL);
INSERT INTO "objects" VALUES('Steering','default','france-steering','f5b469c8-ee5a-4462-83c7-69601bab0819',1,41,'{"arms": ["none", "coarse", "fine", "multi", "coarsePair", "nonChildren", "randomLatent", "meanDifference", "random"], "randomDraws": 3, "systemPromptSeparator": "\n", "method": "add", "strengthUnit": "nextTokenKl", "strengths": [0.5], "samplesPerPrompt": 1, "maxNewTokens": 24, "sampling": {"temperature": 0.8, "topK": 50, "topP": 1.0, "greedy": false, "seed": 0}, "prompts": {"texts": ["We went to"]}, "neutralText": {"texts": ["A plain sentence."]}, "lexicon": {"texts": ["paris"]}, "minDifference": 0.15, "maxArmCosine": 0.98, "captureRef": {"name": "france-capture"}, "mappingRef": {"name": "france-mapping"}, "gatePolicy": "report", "splits": {"seed": 0, "discover": 1.0, "test": 0.0, "calibrate": 0.0}}','{"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "steering is done", "observedGeneration": 1, "lastTransitionTime": 1000003.0}, {"type": "InputsReady", "status": "True", "reason": "InputsResolved", "message": "all inputs are known", "observedGeneration": 1, "lastTransitionTime": 1000002.5}, {"type": "ArtifactsVerified", "status": "True", "reason": "ArtifactVerified", "message": "artifact is intact", "observedGeneration": 1, "lastTransitionTime": 1000003.0}], "summary": {"verdict": "Supported", "contrast": "multi - fine", "estimate": 0.25, "low": 0.1, "high": 0.4, "n": 20}, "inputs": {"capture": {"object": "france-capture", "digest": "bbdaa15214685c0b9d55182fed600d4a5c34d6d2cbd17a9bb9567f38cb3ba7ef", "contentDigest": "fb52c5c6de553ae4f7dc685de6f968feb2218c16091bbb2b777519534ccbc55f"}, "mapping": {"digest": "eb8fa8c696110a4ebad2b42d190636539b8380e73cd739cdbf3c51afab321776", "contentDigest": "d9ea037a556aaeb4ecb4f3b872d180d04ab9c41083ca5e59f23d668b6ecd524c"}}, "artifact": {"stage": "steering", "digest": "b8cc19ca5b3039bb763b1be1c2f54ddc9aacc38cc03ab2f0a7461ded8ecbdb84", "contentDigest": "e1e9e8d71748aa4c794dd27fa02b2d232b513e497f31f2689b7a6f0621187042"}}','{"loopscope.dev/experiment": "france"}','{}','[]','Experiment','france','5acca279-2d32-4a54-a88a-bcb9d70c1093','b8cc19ca5b3039bb763b1be1c2f54ddc9aacc38cc03ab2f0a7461ded8ecbdb84',1000000.0,NULL);
INSERT INTO "objects" VALUES('Capture','default','retries','180a5f7d-0d34-49a3-a5a8-568521ee8689',1,45,'{"model": {"name": "tiny", "source": {"folder": "/models/tiny"}, "dtype": "float32"}, "hook": "blocks.2.hook_resid_post", "prompts": {"target": {"texts": ["a"]}, "neutral": {"texts": ["b"]}}, "positions": "last", "maxTokens": 128, "splits": {"seed": 0, "discover": 1.0, "test": 0.0, "calibrate": 0.0}}','{"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False", "reason": "RetryingLater", "message": "capture job 6 is retried (attempt 1 failed): OutOfMemory: capture went wrong", "observedGeneration": 1, "lastTransitionTime": 1001000.0}, {"type": "Reconciling", "status": "True", "reason": "RetryingLater", "message": "capture job 6 is retried (attempt 1 failed): OutOfMemory: capture went wrong", "observedGeneration": 1, "lastTransitionTime": 1001000.0}, {"type": "InputsReady", "status": "True", "reason": "InputsResolved", "message": "all inputs are known", "observedGeneration": 1, "lastTransitionTime": 1001000.0}], "summary": {}, "inputs": {"model": {"ref": {"identity": "be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8", "folder": "/cache/tiny"}, "d_model": 8, "n_layers": 4}}, "artifact": null}','{}','{}','[]',NULL,NULL,NULL,'21edd6d5a708dbfeb2d0b4870679dbf46eb789206307109558018758b34704e9',1001000.0,NULL);
INSERT INTO "objects" VALUES('Capture','default','runs','1235d1a9-5471-4012-b48a-3e028fbcca2b',1,47,'{"model": {"name": "tiny", "source": {"folder": "/models/tiny"}, "dtype": "float32"}, "hook": "blocks.2.hook_resid_post", "prompts": {"target": {"texts": ["\u00fc"]}, "neutral": {"texts": ["''"]}}, "positions": "last", "maxTokens": 128, "splits": {"seed": 0, "discover": 1.0, "test": 0.0, "calibrate": 0.0}}','{"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False", "reason": "JobPending", "message": "capture job waits for a worker", "observedGeneration": 1, "lastTransitionTime": 1001000.0}, {"type": "Reconciling", "status": "True", "reason": "JobPending", "message": "capture job waits for a worker", "observedGeneration": 1, "lastTransitionTime": 1001000.0}, {"type": "InputsReady", "status": "True", "reason": "InputsResolved", "message": "all inputs are known", "observedGeneration": 1, "lastTransitionTime": 1001000.0}], "summary": {}, "inputs": {"model": {"ref": {"identity": "be726b61602057ef6958400911596c3d248d753a67cd60b4853c9a9517235fa8", "folder": "/cache/tiny"}, "d_model": 8, "n_layers": 4}}, "artifact": null}','{}','{}','[]',NULL,NULL,NULL,'eb9b18c9b2586d4eb50a6fcf28fdc10063b5c648ec0a6643888964d535071dc7',1001000.0,NULL);
CREATE TABLE pauses (
	scope VARCHAR NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (scope)
);
INSERT INTO "pauses" VALUES('stage/steering',1001000.0);
CREATE TABLE progress (
	job_id INTEGER NOT NULL, 
	phase VARCHAR NOT NULL, 
	done INTEGER NOT NULL, 
	total INTEGER NOT NULL, 
	unit VARCHAR NOT NULL, 
	phase_started_at FLOAT NOT NULL, 
	updated_at FLOAT NOT NULL, tokens INTEGER, 
	PRIMARY KEY (job_id)
);
INSERT INTO "progress" VALUES(7,'Capturing',1,2,'prompts',1001000.0,1001000.0,NULL);
CREATE TABLE sources (
	path VARCHAR NOT NULL, 
	fingerprint VARCHAR NOT NULL, 
	named VARCHAR NOT NULL, 
	objects VARCHAR NOT NULL, 
	PRIMARY KEY (path)
);
INSERT INTO "sources" VALUES('/specs/a.yaml','hash','[]','[]');
CREATE TABLE workers (
	name VARCHAR NOT NULL, 
	device VARCHAR NOT NULL, 
	model VARCHAR, 
	PRIMARY KEY (name)
);
INSERT INTO "workers" VALUES('worker-1','cpu','m');
CREATE INDEX objects_by_owner ON objects (owner_uid);
CREATE INDEX objects_by_wanted_digest ON objects (wanted_digest);
CREATE INDEX applied_by_manager ON applied (manager);
CREATE UNIQUE INDEX jobs_one_active_per_digest ON jobs (digest) WHERE state in ('pending','running');
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_digest ON jobs (digest);
COMMIT;
