"""The public words for a purpose: DPV's purposes and GA4GH's data use codes.

Data Privacy Vocabulary 2 (W3C DPVCG, https://w3id.org/dpv, module Purposes) and the Data Use Ontology (GA4GH,
http://purl.obolibrary.org/obo/duo.owl). A word that is in neither is refused, as nobody could look it up.
"""

DUO = {
    "DUO:0000004": "no restriction",
    "DUO:0000006": "health or medical or biomedical research",
    "DUO:0000007": "disease specific research",
    "DUO:0000011": "population origins or ancestry research only",
    "DUO:0000012": "research specific restrictions",
    "DUO:0000015": "no general methods research",
    "DUO:0000016": "genetic studies only",
    "DUO:0000018": "not for profit, non commercial use only",
    "DUO:0000019": "publication required",
    "DUO:0000020": "collaboration required",
    "DUO:0000021": "ethics approval required",
    "DUO:0000022": "geographical restriction",
    "DUO:0000024": "publication moratorium",
    "DUO:0000025": "time limit on use",
    "DUO:0000026": "user specific restriction",
    "DUO:0000027": "project specific restriction",
    "DUO:0000028": "institution specific restriction",
    "DUO:0000029": "return to database or resource",
    "DUO:0000042": "general research use",
    "DUO:0000043": "clinical care use",
    "DUO:0000044": "population origins or ancestry research prohibited",
    "DUO:0000045": "not for profit organisation use only",
    "DUO:0000046": "non-commercial use only",
}
ETHICS_APPROVAL = "DUO:0000021"
GEOGRAPHICAL = "DUO:0000022"

_PURPOSES = """
AcademicResearch AccountManagement Advertising AgeVerification CombatClimateChange CommercialPurpose
CommercialResearch CommunicationForCustomerCare CommunicationManagement CounterMoneyLaundering Counterterrorism
CustomerCare CustomerClaimsManagement CustomerManagement CustomerOrderManagement CustomerRelationshipManagement
CustomerSolvencyMonitoring DataAltruism DeliveryOfGoods DirectMarketing DisputeManagement EnforceAccessControl
EnforceSecurity EstablishContractualAgreement FraudPreventionAndDetection FulfilmentOfContractualObligation
FulfilmentOfObligation HumanResourceManagement IdentityAuthentication IdentityVerification
ImproveExistingProductsAndServices ImproveHealthcare ImproveInternalCRMProcesses ImprovePublicServices
ImproveTransportAndMobility IncreaseServiceRobustness InternalResourceOptimisation LegalCompliance
MaintainFraudDatabase Marketing MembersAndPartnersManagement MisusePreventionAndDetection NonCommercialPurpose
NonCommercialResearch OptimisationForConsumer OptimisationForController OptimiseUserInterface
OrganisationComplianceManagement OrganisationGovernance OrganisationRiskManagement PaymentManagement Personalisation
PersonalisedAdvertising PersonalisedBenefits PersonnelBehaviourMonitoring PersonnelHiring PersonnelManagement
PersonnelMonitoring PersonnelOffboarding PersonnelOnboarding PersonnelPayment PersonnelPerformanceEvaluation
PersonnelPerformanceManagement PersonnelPerformanceMonitoring PersonnelPerformancePrediction
PersonnelPromotionManagement PersonnelTerminationManagement PersonnelWorkloadManagement PoliticalCampaign
ProtectionOfIntellectualPropertyRights ProtectionOfNationalSecurity ProtectionOfPublicSecurity
ProvideEventRecommendations ProvideOfficialStatistics ProvidePersonalisedRecommendations ProvideProductRecommendations
PublicBenefit PublicPolicyMaking PublicRelations RecordManagement RecruitmentAdvertising
RecruitmentApplicantBackgroundCheck RecruitmentApplicantCriminalBackgroundCheck
RecruitmentApplicantInformationAuthentication RecruitmentApplicantSelection RecruitmentApplicationAnalysis
RecruitmentApplicationManagement RecruitmentApplicationScreening RecruitmentInterviewAnalysis
RecruitmentInterviewAssessment RecruitmentInterviewManagement RecruitmentInterviewScheduling RecruitmentManagement
RepairImpairments RequestedServiceProvision ResearchAndDevelopment RightsFulfilment ScientificResearch
SearchFunctionalities SellDataToThirdParties SellInsightsFromData SellProducts SellProductsToDataSubject
ServiceAccessDetermination ServiceManagement ServiceMonitoring ServiceOptimisation ServicePersonalisation
ServiceProvision ServiceRegistration ServiceUsageAnalytics SocialMediaMarketing TargetedAdvertising
TargetedRecruitmentAdvertising TechnicalServiceProvision UserInterfacePersonalisation VendorManagement VendorPayment
VendorRecordsManagement VendorSelectionAssessment Verification
"""
DPV = frozenset(f"dpv:{name}" for name in _PURPOSES.split())
KNOWN = DPV | DUO.keys()
